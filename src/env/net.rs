//! Listening and connecting behind a trait.
#![allow(clippy::disallowed_methods)] // These calls are allowed only here.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    os::fd::BorrowedFd,
    path::Path,
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::BoxFuture;

/// A network.
pub trait Net: Send + Sync + 'static {
    /// Listens on an address; port 0 lets the system choose.
    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>>;
    /// Opens a connection.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;
    /// The addresses of a host name. May wait for a name server, so it belongs on the blocking pool.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
    /// The address that stands for all interfaces.
    fn wildcard(&self, port: u16) -> SocketAddr;
    /// The name of this host.
    fn host_name(&self) -> String;
}

/// A listening socket.
pub trait Listener: Send + Sync + 'static {
    /// Waits for the next connection. Returns it with the client's address.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>>;
    /// The address listened on, with the port that the system chose.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A connection: bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// The local address, to which the client has connected.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// The plain TCP socket, if there is one: the kernel can send files to it.
    fn socket(&self) -> Option<Socket<'_>>;
    /// Whether the peer has closed the connection, as far as can be known without reading.
    fn is_closed_by_peer(&self) -> bool;
}

/// A socket the kernel can send files to.
#[derive(Clone, Copy)]
pub struct Socket<'a>(&'a tokio::net::TcpStream);

impl Socket<'_> {
    /// Sends up to `length` bytes of `file` from `position`, and waits until the socket accepts some. Returns the
    /// number of bytes sent; it is 0 only if the file is too short.
    pub async fn send_file(self, file: BorrowedFd<'_>, position: u64, length: usize) -> io::Result<usize> {
        self.0
            .async_io(tokio::io::Interest::WRITABLE, || {
                let mut position = position;
                Ok(rustix::fs::sendfile(self.0, file, Some(&mut position), length)?)
            })
            .await
    }
}

/// After a minute of silence the system sends keepalive probes; after six probes without a reply it closes the
/// connection.
const KEEPALIVE: socket2::TcpKeepalive = socket2::TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(6);

/// The operating system's TCP.
pub struct SystemNet;

impl Net for SystemNet {
    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // With "::" Java's wildcard address listens for IPv4 as well.
            let _ = socket.set_only_v6(false);
        }
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        socket.set_nonblocking(true)?;
        Ok(Box::new(tokio::net::TcpListener::from_std(socket.into())?))
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }

    /// IPv6 and with it IPv4, as Java, if the system has IPv6.
    fn wildcard(&self, port: u16) -> SocketAddr {
        if Path::new("/proc/net/if_inet6").exists() {
            (Ipv6Addr::UNSPECIFIED, port).into()
        } else {
            (Ipv4Addr::UNSPECIFIED, port).into()
        }
    }

    fn host_name(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
}

impl Listener for tokio::net::TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = tokio::net::TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            // A client that vanished without closing is noticed within minutes.
            socket2::SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
            Ok((Box::new(stream) as Box<dyn Stream>, from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        tokio::net::TcpListener::local_addr(self)
    }
}

impl Stream for tokio::net::TcpStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        tokio::net::TcpStream::local_addr(self)
    }

    fn socket(&self) -> Option<Socket<'_>> {
        Some(Socket(self))
    }

    fn is_closed_by_peer(&self) -> bool {
        let ready = self.ready(tokio::io::Interest::READABLE).now_or_never();
        ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }
}
