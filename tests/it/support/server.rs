//! Real servers on 127.0.0.1, on any free port. They are stopped when dropped.
use sessile::http::{IntoResponse, ServerResponse};
use sessile::{Session, Sessions, http};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running server.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: Option<Box<dyn FnOnce()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
        // If the test has failed, a worker may be stuck, so the drop does not wait for it.
        if !std::thread::panicking() {
            for thread in self.threads.drain(..) {
                thread.join().expect("a worker panicked");
            }
        }
    }
}

/// A `tiny_http` server with this many worker threads. A panic that the adapter does not catch ends a thread.
pub(crate) fn tiny_http<R: IntoResponse<http::tiny_http::AnyResponse>>(
    sessions: &Sessions,
    workers: usize,
    handler: impl Fn(&mut tiny_http::Request, &mut Session) -> R + Send + Sync + 'static,
) -> Running {
    let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
    let address = server.server_addr().to_ip().unwrap();
    let handler = Arc::new(handler);
    let work = |_| {
        let (server, sessions, handler) = (server.clone(), sessions.clone(), handler.clone());
        std::thread::spawn(move || {
            for request in server.incoming_requests() {
                // An error is ignored: the client may have closed the connection.
                let _ = http::tiny_http::serve(&sessions, request, &*handler);
            }
        })
    };
    let threads = (0..workers).map(work).collect();
    let stop = Box::new(move || (0..workers).for_each(|_| server.unblock()));
    Running { address, stop: Some(stop), threads }
}

/// A rouille server with a pool of this many threads.
pub(crate) fn rouille<R: IntoResponse<rouille::Response>>(
    sessions: &Sessions,
    workers: usize,
    handler: impl Fn(&rouille::Request, &mut Session) -> R + Send + Sync + 'static,
) -> Running {
    let sessions = sessions.clone();
    let server = rouille::Server::new("127.0.0.1:0", move |request| {
        http::rouille::serve(&sessions, request, &handler)
    });
    let server = server.unwrap().pool_size(workers);
    let address = server.server_addr();
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = stopped.clone();
    let thread = std::thread::spawn(move || {
        while !flag.load(Ordering::SeqCst) {
            server.poll_timeout(Duration::from_millis(20));
        }
    });
    Running {
        address,
        stop: Some(Box::new(move || stopped.store(true, Ordering::SeqCst))),
        threads: vec![thread],
    }
}

/// A response of a server for which the library has no adapter.
#[derive(Debug, PartialEq)]
pub(crate) struct Reply(pub(crate) u16, pub(crate) &'static str);

impl ServerResponse for Reply {
    fn status(&self) -> u16 {
        self.0
    }
    fn plain_text(status: u16, text: &'static str) -> Self {
        Self(status, text)
    }
}

impl IntoResponse<Self> for Reply {
    fn into_response(self) -> Self {
        self
    }
}
