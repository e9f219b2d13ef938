//! A program that is no browser: it requests one page with a cookie that it was given.
use crate::waiting::PATIENCE;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Requests a page with this cookie header. Returns the whole response, as text.
#[track_caller]
pub(crate) fn get(server: SocketAddr, path: &str, cookie: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // To HTTP/1.0 a server answers without chunks, and closes the connection.
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: {server}\r\nCookie: {cookie}\r\n\r\n").as_bytes())
        .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}
