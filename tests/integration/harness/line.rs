//! A way to the API server that can be cut, as a network can.

use serde_json::Value;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

/// The way to the API server of whoever has its kubeconfig.
pub(crate) struct Line {
    pub(crate) kubeconfig: PathBuf,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Line {
    /// One to the API server of this kubeconfig.
    pub(crate) fn to(kubeconfig: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = std::fs::read_to_string(kubeconfig).unwrap();
        let mut config: Value = serde_json::from_str(&config).unwrap();
        let server = config["clusters"][0]["cluster"]["server"].take();
        let server = server
            .as_str()
            .unwrap()
            .strip_prefix("https://")
            .unwrap()
            .to_owned();
        let own = format!("https://{}", listener.local_addr().unwrap());
        config["clusters"][0]["cluster"]["server"] = own.into();
        let kubeconfig = kubeconfig.with_extension("line");
        std::fs::write(&kubeconfig, config.to_string()).unwrap();

        let ends = Arc::<Mutex<Vec<TcpStream>>>::default();
        let line = Self {
            kubeconfig,
            ends: ends.clone(),
        };
        thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), TcpStream::connect(&server).unwrap());
                for (mut from, mut to) in [(&near, &far), (&far, &near)].map(both) {
                    ends.lock().unwrap().push(from.try_clone().unwrap());
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        line
    }

    /// Ends all connections. Others can be made at once.
    pub(crate) fn cut(&self) {
        for end in self.ends.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn both((from, to): (&TcpStream, &TcpStream)) -> (TcpStream, TcpStream) {
    (from.try_clone().unwrap(), to.try_clone().unwrap())
}
