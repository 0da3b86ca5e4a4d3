use super::*;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector;

type Object = PartialObjectMeta<ConfigMap>;

const NAMESPACES: [&str; 2] = ["one", "two"];

/// An event as the table has it: `i` a list begins, `d` it is done, `+a` it names `a`, `a` has
/// changed, `-a` is gone; or nothing for `x`, a list that is refused.
fn event(place: usize, word: &str) -> Option<Event<Object>> {
    let object = |name: &str| {
        Object::with(ObjectMeta {
            name: Some(name.into()),
            namespace: Some(NAMESPACES[place].into()),
            ..ObjectMeta::default()
        })
    };
    Some(match (word.split_at(1), word) {
        (_, "x") => return None,
        (_, "i") => Event::Init,
        (_, "d") => Event::InitDone,
        (("+", name), _) => Event::InitApply(object(name)),
        (("-", name), _) => Event::Delete(object(name)),
        (_, name) => Event::Apply(object(name)),
    })
}

/// The same the other way round, with the number of the namespace.
fn word(event: &Event<Object>) -> String {
    let of = |sign: &str, object: &Object| {
        let namespace = object.namespace().unwrap();
        let place = NAMESPACES.iter().position(|known| *known == namespace);
        format!("{}:{sign}{}", place.unwrap() + 1, object.name_any())
    };
    match event {
        Event::Init => "i".into(),
        Event::InitDone => "d".into(),
        Event::InitApply(object) => of("+", object),
        Event::Delete(object) => of("-", object),
        Event::Apply(object) => of("", object),
    }
}

/// What comes out, and what a store that follows it holds in the end.
fn merge(events: &str) -> (String, String) {
    let mut merger = Merger::of(NAMESPACES.map(str::to_owned));
    let (store, mut writer) = reflector::store::<Object>();
    writer.apply_watcher_event(&Event::Init);
    let mut words = Vec::new();
    for told in events.split_whitespace() {
        let (number, told) = told.split_once(':').unwrap();
        let place = number.parse::<usize>().unwrap() - 1;
        let told = match event(place, told) {
            Some(event) => merger.take(place, event),
            None => merger.give_up(place),
        };
        for event in told {
            let is_done = words.iter().any(|word| word == "d");
            let is_listing = matches!(event, Event::InitApply(_) | Event::InitDone);
            assert!(is_done != is_listing, "{event:?} after {words:?}");
            writer.apply_watcher_event(&event);
            words.push(word(&event));
        }
    }
    let held = store.state();
    let held = held
        .iter()
        .map(|object| word(&Event::Apply(Object::clone(object))));
    let mut held: Vec<_> = held.collect();
    held.sort();
    (words.join(" "), held.join(" "))
}

#[test]
fn several_watches_are_one_to_those_who_follow() {
    for (what, events, expected, held) in [
        (
            "the first lists are one list, done with the last of them",
            "1:i 2:i 1:+a 2:+a 1:+b 1:d 2:d",
            "1:+a 2:+a 1:+b d",
            "1:a 1:b 2:a",
        ),
        (
            "what changes while another one lists is part of the list",
            "1:i 1:+a 1:d 1:a 1:b 2:i 2:d",
            "1:+a 1:+a 1:+b d",
            "1:a 1:b",
        ),
        (
            "what is gone before the list is done is gone after it",
            "1:i 1:+a 1:+b 1:d 1:-a 2:i 2:d",
            "1:+a 1:+b d 1:-a",
            "1:b",
        ),
        (
            "and what has come back by then is there",
            "1:i 1:+a 1:d 1:-a 1:a 2:i 2:d",
            "1:+a 1:+a d",
            "1:a",
        ),
        (
            "a first list that breaks and begins again tells of what is gone",
            "1:i 1:+a 1:+b 1:i 1:+b 1:d 2:i 2:d",
            "1:+a 1:+b 1:+b d 1:-a",
            "1:b",
        ),
        (
            "changes come through",
            "1:i 1:+a 1:d 2:i 2:d 2:a 1:a 1:-a",
            "1:+a d 2:a 1:a 1:-a",
            "2:a",
        ),
        (
            "a new list touches no other namespace, and hides nothing until it is done",
            "1:i 1:+a 1:+b 1:d 2:i 2:+a 2:d 1:i 2:b 1:+b 1:+c",
            "1:+a 1:+b 2:+a d 2:b 1:b 1:c",
            "1:a 1:b 1:c 2:a 2:b",
        ),
        (
            "what it does not name is gone when it is done",
            "1:i 1:+a 1:+b 1:d 2:i 2:+a 2:d 1:i 1:+b 1:+c 1:d",
            "1:+a 1:+b 2:+a d 1:b 1:c 1:-a",
            "1:b 1:c 2:a",
        ),
        (
            "a new list that breaks and begins again loses nothing",
            "1:i 1:+a 1:+b 1:d 2:i 2:d 1:i 1:+a 1:i 1:+b 1:d",
            "1:+a 1:+b d 1:a 1:b 1:-a",
            "1:b",
        ),
        (
            "what nobody was told of is not told to be gone",
            "1:i 1:d 2:i 2:d 1:-a",
            "d",
            "",
        ),
        (
            "nobody waits for what may not be read",
            "1:i 1:x 2:i 2:+a 2:d 1:i 1:x",
            "2:+a d",
            "2:a",
        ),
        (
            "which comes later, when it may",
            "2:i 2:+a 2:d 1:i 1:x 1:i 1:+a 1:d",
            "2:+a d 1:a",
            "1:a 2:a",
        ),
        (
            "and stays known while it may not be read any more",
            "1:i 1:+a 1:d 2:i 2:d 1:i 1:x 2:a",
            "1:+a d 2:a",
            "1:a 2:a",
        ),
        (
            "where nothing may be read there is nothing",
            "1:i 1:x 2:i 2:x",
            "d",
            "",
        ),
        (
            "half of it is not all",
            "1:i 1:+a 1:d 2:i 2:+a",
            "1:+a 2:+a",
            "",
        ),
    ] {
        let merged = merge(events);
        assert_eq!(merged, (expected.to_owned(), held.to_owned()), "{what}");
    }
}
