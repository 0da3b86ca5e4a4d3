//! A replica ends in time, also when other programs do not answer.

use crate::harness::{arena, eventually, operator_binary};
use pki_cluster::Signal;
use pki_cluster::install::{Replica, free_address};
use serde_json::{Value, json};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// After which the kubelet kills a pod of the chart.
const GRACE_OF_POD: Duration = Duration::from_secs(30);

/// A way to the API server that can be blocked: connections stay open, and nothing comes through.
struct Way {
    address: SocketAddr,
    is_blocked: Arc<AtomicBool>,
}

impl Way {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_blocked = Arc::new(AtomicBool::new(false));
        let blocked = is_blocked.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let blocked = blocked.clone();
                    // It ends with the test, if not before.
                    thread::spawn(move || pass(from, to, &blocked));
                }
            }
        });
        Self {
            address,
            is_blocked,
        }
    }

    fn block(&self) {
        self.is_blocked.store(true, Ordering::Relaxed);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, is_blocked: &AtomicBool) -> io::Result<()> {
    let mut bytes = [0; 16 * 1024];
    loop {
        let length = from.read(&mut bytes)?;
        if length == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        while is_blocked.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
        to.write_all(&bytes[..length])?;
    }
}

/// The leader has a Lease to release, Events to write and spans to send.
#[test]
fn a_leader_ends_in_time_when_neither_api_server_nor_collector_answers() {
    let arena = arena();
    let text = std::fs::read_to_string(&arena.kubeconfig).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap();
    let way = Way::to(server.trim_start_matches("https://").parse().unwrap());
    config["clusters"][0]["cluster"]["server"] = json!(format!("https://{}", way.address));
    let kubeconfig = arena.cluster.dir().join("blocked.kubeconfig");
    std::fs::write(&kubeconfig, config.to_string()).unwrap();

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("--otlp-endpoint=http://{}", silent.local_addr().unwrap());
    let replica = Replica {
        binary: operator_binary(),
        kubeconfig: &kubeconfig,
        identity: "operator-1",
        webhook: free_address().unwrap(),
        host: "127.0.0.1",
        flags: &[&endpoint],
    };
    let operator = replica
        .start(|name, command| arena.cluster.spawn(name, command))
        .unwrap();
    eventually("it leads", || {
        arena.leader().filter(|leader| leader == "operator-1")
    });
    way.block();
    operator.process.signal(Signal::TERM).unwrap();
    // Without the drain, which the tests leave out.
    let status = operator.process.wait(GRACE_OF_POD).unwrap();
    let log = operator.process.last_lines(20);
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("stopped"), "{log}");
}
