//! Ten thousand requests that nobody should send.

use super::client::Webhook;
use super::{JSON, review};
use crate::harness::SHARED;
use crate::harness::random::{self, Random};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::thread;

const REQUESTS: u64 = 10_000;
const CONNECTIONS: u64 = 4;

/// `PKI_FUZZ_SEED` repeats a run.
#[test]
fn ten_thousand_odd_requests_are_each_answered_clearly() {
    let seed = random::seed();
    let outcomes = thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|n| scope.spawn(move || send(&mut Random(seed ^ n << 48), REQUESTS / CONNECTIONS)))
            .collect();
        let mut all = BTreeMap::<_, u64>::new();
        for thread in threads {
            for (outcome, count) in thread.join().expect("each answer is a clear one") {
                *all.entry(outcome).or_default() += count;
            }
        }
        all
    });
    println!("{outcomes:?}");
    assert_eq!(outcomes.values().sum::<u64>(), REQUESTS);
    // Otherwise the requests were all of one kind, and little was tried.
    for outcome in ["allowed", "denied", "400"] {
        let count = outcomes.get(outcome).copied().unwrap_or_default();
        assert!(count >= REQUESTS / 50, "{outcome}: {outcomes:?}");
    }
    assert_eq!(SHARED.operator.get("/readyz").expect("it answers").0, 200);
    let log = SHARED.operator.process.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Sends this many over one connection; what came of them.
fn send(random: &mut Random, count: u64) -> BTreeMap<String, u64> {
    let mut webhook = Webhook::of(&SHARED);
    let mut outcomes = BTreeMap::new();
    for _ in 0..count {
        let body = body(random);
        let (status, answer) = webhook.post("/validate", JSON, &body);
        let outcome = match status {
            200 => judgement(&body, &answer),
            400 => {
                assert!(
                    answer.ends_with('\n') && answer.lines().count() == 1,
                    "{answer:?}"
                );
                "400".into()
            }
            _ => panic!("{status} {answer} to {}", String::from_utf8_lossy(&body)),
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    outcomes
}

/// As much of a review as every answer repeats. The rest may be what only a reader who ignores it
/// takes for JSON.
#[derive(Deserialize)]
struct Sent {
    request: Asked,
}

#[derive(Deserialize)]
struct Asked {
    uid: String,
}

/// Checks that it is an answer to this request.
fn judgement(request: &[u8], answer: &str) -> String {
    let sent: Sent = serde_json::from_slice(request).expect("what was understood is a review");
    let answer: Value = serde_json::from_str(answer).expect("an answer is JSON");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    let response = &answer["response"];
    assert_eq!(response["uid"], sent.request.uid, "{answer}");
    if response["allowed"] == false {
        assert_eq!(response["status"]["code"], 422, "{answer}");
        let message = response["status"]["message"].as_str().expect("a message");
        assert!(!message.is_empty() && message.len() < 100_000);
        assert!(
            !message.contains(|c: char| c.is_control() && c != '\n'),
            "{message:?}"
        );
        return "denied".into();
    }
    assert_eq!(response["allowed"], true, "{answer}");
    assert!(
        response["patch"].is_null(),
        "nothing is filled in: {answer}"
    );
    "allowed".into()
}

/// A body: a good review mutated in its structure, in its bytes, in both, or not at all; or noise.
fn body(random: &mut Random) -> Vec<u8> {
    let service = random.pick(&["app1", "app1", "appp1"]);
    let mut review = review(&random.next().to_string(), service);
    match random.below(8) {
        0 => review["request"]["object"]["spec"] = json!({ "serviceName": service }),
        1 => {
            review["request"]["operation"] = json!("UPDATE");
            review["request"]["oldObject"] = review["request"]["object"].clone();
        }
        2 => review["request"]["operation"] = json!(random.pick(&["DELETE", "CONNECT"])),
        _ => {}
    }
    let style = random.below(10);
    if style == 0 {
        let length = random.below(2000);
        return (0..length).map(|_| random.byte()).collect();
    }
    if style >= 4 {
        for _ in 0..=random.below(3) {
            // Mostly in the object: the frame is soon broken, and then nothing behind it is
            // reached.
            let path = random.pick(&[
                "",
                "/request/object",
                "/request/object/spec",
                "/request/object/spec",
            ]);
            // What was there may have been replaced a moment ago.
            let path = if review.pointer(path).is_some() {
                path
            } else {
                ""
            };
            let target = review.pointer_mut(path).expect("it is there");
            mutate(target, random);
        }
    }
    let mut bytes = Vec::new();
    write(&review, random, style == 9, &mut bytes);
    // Mutations multiply; what is larger than the webhook takes is another test's business.
    bytes.truncate(6_000_000);
    if matches!(style, 2..=4) {
        for _ in 0..=random.below(4) {
            damage(&mut bytes, random);
        }
    }
    bytes
}

/// Changes one value somewhere below.
fn mutate(value: &mut Value, random: &mut Random) {
    let descend = random.below(4) != 0;
    match value {
        Value::Object(fields) if descend && !fields.is_empty() => {
            let key = fields
                .keys()
                .nth(random.below(fields.len()))
                .expect("it is there")
                .clone();
            match random.below(8) {
                0 => drop(fields.remove(&key)),
                1 => {
                    let moved = fields.remove(&key).expect("it is there");
                    fields.insert(text(random), moved);
                }
                _ => mutate(&mut fields[&key], random),
            }
        }
        Value::Array(items) if descend && !items.is_empty() => {
            let place = random.below(items.len());
            mutate(&mut items[place], random);
        }
        _ => *value = replacement(value, random),
    }
}

fn replacement(value: &Value, random: &mut Random) -> Value {
    match random.below(14) {
        0 => Value::Null,
        1 => json!(random.next().is_multiple_of(2)),
        2 => json!(random.next().cast_signed()),
        3 => json!(f64::from_bits(random.next())),
        4 => json!([value]),
        5 => json!({ "serviceName": value }),
        6 => (0..random.below(200)).fold(value.clone(), |inner, _| json!([inner])),
        7 => (0..random.below(60)).fold(value.clone(), |inner, _| json!({ "spec": inner })),
        8 => vec![text(random); 150].into(),
        9 => json!("x".repeat(1 << random.below(19))),
        10 => (0..random.below(300))
            .map(|_| (text(random), json!(text(random))))
            .collect::<Map<_, _>>()
            .into(),
        _ => json!(text(random)),
    }
}

fn text(random: &mut Random) -> String {
    let known = [
        "",
        "app1",
        "app2",
        "*",
        ".",
        "db.victim.svc",
        "\0",
        "a\0b",
        "\u{1b}[2J",
        "\u{202e}",
        "\u{feff}",
        "\u{10ffff}",
        "1h",
        "-1h",
        "99999999999999999999h",
        "876000h",
        "0s",
        "metadata",
        "spec",
        "serviceName",
        "dnsNames",
        "apiVersion",
        "kind",
        "uid",
        "operation",
        "CREATE",
        "UPDATE",
        "2030-13-01T00:00:00Z",
        "9999999-01-01T00:00:00Z",
        "xn--",
        "{namespace}",
    ];
    match random.below(3) {
        0 => (0..random.below(40))
            .filter_map(|_| char::from_u32(u32::try_from(random.below(0x11_0000)).ok()?))
            .collect(),
        _ => random.pick(&known).to_owned(),
    }
}

/// Writes it as JSON, on request with some keys twice.
fn write(value: &Value, random: &mut Random, repeat: bool, into: &mut Vec<u8>) {
    let mut separator: &[u8] = b"";
    match value {
        Value::Object(fields) => {
            into.push(b'{');
            for (key, field) in fields {
                for _ in 0..=usize::from(repeat && random.below(30) == 0) {
                    into.extend(separator);
                    into.extend(json!(key).to_string().bytes());
                    into.push(b':');
                    write(field, random, repeat, into);
                    separator = b",";
                }
            }
            into.push(b'}');
        }
        Value::Array(items) => {
            into.push(b'[');
            for item in items {
                into.extend(separator);
                write(item, random, repeat, into);
                separator = b",";
            }
            into.push(b']');
        }
        _ => into.extend(value.to_string().bytes()),
    }
}

/// Changes a few bytes.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let place = random.below(bytes.len().max(1));
    if bytes.is_empty() {
        return;
    }
    match random.below(7) {
        0 => bytes[place] ^= 1 << random.below(8),
        1 => bytes[place] = random.byte(),
        2 => bytes.truncate(place),
        3 => drop(bytes.remove(place)),
        4 => {
            let end = (place + random.below(50)).min(bytes.len());
            let part = bytes[place..end].to_vec();
            bytes.splice(place..place, part);
        }
        5 => {
            // Ends of UTF-8 sequences, halves of surrogates, NUL, numbers beyond any type.
            let odd: [&[u8]; 8] = [
                b"\0",
                b"\xff\xfe",
                b"\xc0\x80",
                b"\xed\xa0\x80",
                b"\\ud800",
                b"1e999",
                b"-",
                b"{\"a\":",
            ];
            let inserted = odd[random.below(odd.len())];
            bytes.splice(place..place, inserted.iter().copied());
        }
        _ => bytes.extend(b"{}"),
    }
}
