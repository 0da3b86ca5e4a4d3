//! What can be done to a port: each attack is one connection, from its beginning to its end.

use crate::admission::webhook::client::{Dialer, Stream, head};
use crate::admission::webhook::{JSON, review};
use serde_json::json;
use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

pub(super) type Attack = fn(&Dialer, &AtomicBool) -> io::Result<()>;

pub(super) const ATTACKS: [(&str, Attack); 11] = [
    ("slow heads", slow_head),
    ("slow small bodies", |dialer, stop| {
        slow_body(dialer, stop, 30_000)
    }),
    ("slow large bodies", |dialer, stop| {
        slow_body(dialer, stop, 7_000_000)
    }),
    ("large bodies", |dialer, _| large_body(dialer)),
    ("large bodies of no size", |dialer, _| {
        chunks(dialer, 65_536, 10_000_000)
    }),
    ("bodies in single bytes", single_bytes),
    ("bodies of many objects", many_objects),
    ("resets", |dialer, _| resets(dialer)),
    ("heads without an end", |dialer, _| endless_head(dialer)),
    ("requests without their bodies", |dialer, stop| {
        streams(dialer, stop, &fields(dialer, Some("100")))
    }),
    (
        "requests without their bodies, of no size",
        |dialer, stop| streams(dialer, stop, &fields(dialer, None)),
    ),
];

/// How long a slow one waits before the next byte.
const SLOW: Duration = Duration::from_millis(200);

fn slowly(stream: &mut Stream, bytes: &[u8], stop: &AtomicBool) -> io::Result<()> {
    for byte in bytes {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        stream.write_all(&[*byte])?;
        stream.flush()?;
        thread::sleep(SLOW);
    }
    Ok(())
}

fn slow_head(dialer: &Dialer, stop: &AtomicBool) -> io::Result<()> {
    let head = head("POST", &dialer.at("/validate"), JSON, "Content-Length: 2");
    slowly(&mut dialer.dial("http/1.1")?, head.as_bytes(), stop)
}

fn slow_body(dialer: &Dialer, stop: &AtomicBool, size: usize) -> io::Result<()> {
    let mut stream = dialer.dial("http/1.1")?;
    let length = format!("Content-Length: {size}");
    stream.write_all(head("POST", &dialer.at("/validate"), JSON, &length).as_bytes())?;
    slowly(&mut stream, &[b' '; 1000], stop)
}

fn large_body(dialer: &Dialer) -> io::Result<()> {
    let mut stream = dialer.dial("http/1.1")?;
    let head = head(
        "POST",
        &dialer.at("/validate"),
        JSON,
        "Content-Length: 10000000",
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&vec![b' '; 10_000_000])?;
    end(&mut stream)
}

fn chunks(dialer: &Dialer, size: usize, total: usize) -> io::Result<()> {
    let mut stream = dialer.dial("http/1.1")?;
    let head = head(
        "POST",
        &dialer.at("/validate"),
        JSON,
        "Transfer-Encoding: chunked",
    );
    stream.write_all(head.as_bytes())?;
    let chunk = [
        format!("{size:x}\r\n").as_bytes(),
        &vec![b' '; size],
        b"\r\n",
    ]
    .concat();
    let many = 65_536 / chunk.len() + 1;
    for _ in 0..total / size / many {
        stream.write_all(&chunk.repeat(many))?;
    }
    stream.write_all(b"0\r\n\r\n")?;
    end(&mut stream)
}

pub(super) fn single_bytes(dialer: &Dialer, _: &AtomicBool) -> io::Result<()> {
    chunks(dialer, 1, 500_000)
}

pub(super) fn many_objects(dialer: &Dialer, _: &AtomicBool) -> io::Result<()> {
    many(dialer, r#"{"a":0}"#, 800_000)
}

pub(super) fn most_objects(dialer: &Dialer, _: &AtomicBool) -> io::Result<()> {
    many(dialer, r#"{"a":0}"#, 24_900)
}

pub(super) fn most_names(dialer: &Dialer, _: &AtomicBool) -> io::Result<()> {
    many(dialer, r#""abcdefghi""#, 399_000)
}

/// A review whose spec holds so many of these values.
fn many(dialer: &Dialer, value: &str, count: usize) -> io::Result<()> {
    let mut review = review("many", "app1");
    review["request"]["object"]["spec"]["many"] = json!("MANY");
    let many = format!("[{}]", vec![value; count].join(","));
    let body = review.to_string().replace(r#""MANY""#, &many);
    let mut stream = dialer.dial("http/1.1")?;
    let length = format!("Content-Length: {}", body.len());
    stream.write_all(head("POST", &dialer.at("/validate"), JSON, &length).as_bytes())?;
    stream.write_all(body.as_bytes())?;
    end(&mut stream)
}

/// Waits for the answer, or at least its beginning.
fn end(stream: &mut Stream) -> io::Result<()> {
    stream.flush()?;
    stream.read(&mut [0; 12]).map(drop)
}

/// Types and flags of HTTP/2's frames, as RFC 9113 has them.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a small frame")
        .to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A POST to the webhook by https; a body follows, of this length if it is given.
fn fields(dialer: &Dialer, length: Option<&str>) -> Vec<u8> {
    // From HPACK's static table: `:method: POST`, `:scheme: https`; `:path`, `:authority` and
    // `content-length` with values.
    let mut fields = vec![0x83, 0x87];
    let mut field = |name: &[u8], value: &str| {
        fields.extend(name);
        fields.push(u8::try_from(value.len()).expect("short"));
        fields.extend(value.as_bytes());
    };
    field(&[0x04], &dialer.at("/validate"));
    field(&[0x01], "webhook");
    if let Some(length) = length {
        field(&[0x0f, 0x0d], length);
    }
    fields
}

/// A connection that speaks HTTP/2, and has asked nothing.
fn http2(dialer: &Dialer) -> io::Result<Stream> {
    let mut stream = dialer.dial("h2")?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    stream.flush()?;
    Ok(stream)
}

fn resets(dialer: &Dialer) -> io::Result<()> {
    let mut stream = http2(dialer)?;
    for number in (1..200_001).step_by(2) {
        let request = frame(HEADERS, END_HEADERS, number, &fields(dialer, None));
        let reset = frame(RST_STREAM, 0, number, &[0, 0, 0, 8]);
        stream.write_all(&[request, reset].concat())?;
    }
    panic!("100,000 requests were asked and reset, and nobody minded");
}

fn endless_head(dialer: &Dialer) -> io::Result<()> {
    let mut stream = http2(dialer)?;
    stream.write_all(&frame(HEADERS, 0, 1, &fields(dialer, None)))?;
    // A literal field that is not kept, over and over.
    let field = [&[0x00, 1, b'a', 100][..], &[b'b'; 100]]
        .concat()
        .repeat(100);
    for _ in 0..10_000 {
        stream.write_all(&frame(CONTINUATION, 0, 1, &field))?;
    }
    panic!("a head of 100 MB was taken");
}

/// As many requests as there may be, whose bodies never come.
fn streams(dialer: &Dialer, stop: &AtomicBool, fields: &[u8]) -> io::Result<()> {
    let mut stream = http2(dialer)?;
    for number in (1..256).step_by(2) {
        stream.write_all(&frame(HEADERS, END_HEADERS, number, fields))?;
    }
    stream.flush()?;
    stream.sock.set_read_timeout(Some(SLOW))?;
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A `ClientHello` of TLS 1.`minor - 1` as it was written before there was a version 1.3.
pub(super) fn client_hello(minor: u8) -> Vec<u8> {
    // Version, random, no session; ECDHE and ECDSA with AES, of 1.2 and of before; no compression.
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    hello.extend([0, 0, 6, 0xc0, 0x2b, 0xc0, 0x09, 0xc0, 0x0a, 1, 0]);
    // Group secp256r1, points uncompressed, signatures by ECDSA and SHA-256.
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 4, 0, 2, 4, 3],
    ];
    let extensions = extensions.concat();
    hello.extend([0, u8::try_from(extensions.len()).expect("short")]);
    hello.extend(extensions);
    let handshake = [
        &[1, 0, 0, u8::try_from(hello.len()).expect("short")][..],
        &hello,
    ]
    .concat();
    let length = u8::try_from(handshake.len()).expect("short");
    [&[22, 3, 1, 0, length][..], &handshake].concat()
}

/// Connections that say nothing, or half of something: the youngest of all that were opened.
pub(super) struct Crowd {
    _tcp: VecDeque<TcpStream>,
    _tls: VecDeque<Stream>,
}

impl Crowd {
    /// Opens them until it is time to stop, so that there are always as many, whatever the other
    /// side closes.
    pub(super) fn gather(
        most: usize,
        dialer: &Dialer,
        metrics: SocketAddr,
        stop: &AtomicBool,
    ) -> Self {
        let (mut tcp, mut tls) = (VecDeque::new(), VecDeque::new());
        let hello = client_hello(3);
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            // Each fails when it makes way before it is there.
            if let Ok(mut stream) = TcpStream::connect(dialer.address) {
                if number % 2 == 0 {
                    let _ = stream.write_all(&hello[..30]);
                }
                tcp.push_back(stream);
            }
            if let Ok(stream) = TcpStream::connect(metrics) {
                tcp.push_back(stream);
            }
            let stream = if number % 2 == 0 {
                dialer.dial("http/1.1")
            } else {
                http2(dialer)
            };
            tls.extend(stream.ok());
            tcp.drain(..tcp.len().saturating_sub(most));
            tls.drain(..tls.len().saturating_sub(most));
            if tls.len() == most {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Self {
            _tcp: tcp,
            _tls: tls,
        }
    }
}
