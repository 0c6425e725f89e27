//! A registry that follows a script.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request as the registry got it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }

    pub fn range(&self) -> Option<(usize, usize)> {
        let (start, end) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some((start.parse().ok()?, end.parse::<usize>().ok()? + 1))
    }
}

/// What the registry writes back, byte for byte; then it may keep silent for a while before it closes.
pub struct Reply {
    pub bytes: Vec<u8>,
    /// Written behind them again and again, so far apart, until the client hangs up.
    pub endless: Option<(Vec<u8>, Duration)>,
    pub silence: Duration,
}

pub fn reply(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    if !headers
        .iter()
        .any(|h| h.0.eq_ignore_ascii_case("content-length"))
    {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (key, value) in headers {
        head += &format!("{key}: {value}\r\n");
    }
    Reply {
        bytes: [head.as_bytes(), b"\r\n", body].concat(),
        endless: None,
        silence: Duration::ZERO,
    }
}

impl Reply {
    /// The same, but its end does not show from its head.
    pub fn without_length(mut self) -> Reply {
        let name = b"Content-Length";
        let start = self.bytes.windows(name.len()).position(|w| w == name);
        let start = start.expect("a length");
        let end = self.bytes[start..].iter().position(|&b| b == b'\n');
        self.bytes
            .drain(start..=start + end.expect("its line's end"));
        self
    }
}

/// A registry on loopback: `answer` sees each request and how many came before.
pub struct Scripted {
    pub address: String,
    pub asked: Arc<Mutex<Vec<Asked>>>,
}

type Answer = dyn Fn(&Asked, usize) -> Reply + Send + Sync;

impl Scripted {
    pub fn start(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Scripted {
        Scripted::listen(None, Arc::new(answer))
    }

    /// The same over https.
    pub fn start_tls(
        tls: ServerConfig,
        answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
    ) -> Scripted {
        Scripted::listen(Some(Arc::new(tls)), Arc::new(answer))
    }

    fn listen(tls: Option<Arc<ServerConfig>>, answer: Arc<Answer>) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer, tls) = (Arc::clone(&log), Arc::clone(&answer), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &log, &*answer),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).unwrap();
                        serve(StreamOwned::new(connection, stream), &log, &*answer);
                    }
                });
            }
        });
        Scripted { address, asked }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// A model of this registry.
    pub fn name(&self) -> String {
        format!("{}/ns/m:t", self.address)
    }
}

fn serve(mut stream: impl Read + Write, log: &Mutex<Vec<Asked>>, answer: &Answer) {
    let Some(asked) = read(&mut stream) else {
        return;
    };
    let n = {
        let mut log = log.lock().unwrap();
        log.push(asked.clone());
        log.len() - 1
    };
    let reply = answer(&asked, n);
    // The client may have hung up on purpose.
    let mut is_there = stream.write_all(&reply.bytes).and_then(|()| stream.flush());
    if let Some((bytes, pause)) = reply.endless {
        while is_there.is_ok() {
            std::thread::sleep(pause);
            is_there = stream.write_all(&bytes).and_then(|()| stream.flush());
        }
    }
    std::thread::sleep(reply.silence);
}

fn read(stream: &mut impl Read) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((key, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((key.to_owned(), value.to_owned()));
    }
    let mut asked = Asked {
        method,
        path,
        headers,
        body: Vec::new(),
    };
    let n = asked.header("content-length").and_then(|n| n.parse().ok());
    asked.body = vec![0; n.unwrap_or(0)];
    reader.read_exact(&mut asked.body).ok()?;
    Some(asked)
}
