//! The network between simulated nodes: connections as TCP offers them, and links that fail as real ones do.
//!
//! Owns delay, cut links (bytes wait, and arrive if the link is mended), reset connections, refused ones, half-closed
//! ones, and readers that are too slow for their writer. Each node is a host with the address `10.0.0.<node>`. Leaves
//! the order of tasks and time to `world.rs`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    locked,
    world::{NodeId, World},
};
use crate::env::{
    BoxFuture, Net,
    net::{Listener, Socket, Stream},
};

/// The bytes that a connection holds in each direction until its reader takes them, as the buffers of a system do.
const WINDOW_BYTES: usize = 256 << 10;
/// The shortest and the longest delay of a link, in µs, unless [`SimNet::set_delay`] changes it.
const DELAY_MICROS: (u64, u64) = (50, 500);
/// The first port that is given to a listener or to a connection without a port of its own.
const FIRST_FREE_PORT: u16 = 40_000;

/// The network of a simulation. Clones share it.
#[derive(Clone)]
pub struct SimNet {
    world: World,
    state: Arc<Mutex<State>>,
}

struct State {
    listening: BTreeMap<SocketAddr, Arc<Mutex<Backlog>>>,
    /// The links, by sender and receiver, that lose everything.
    cut: BTreeSet<(NodeId, NodeId)>,
    delay_micros: (u64, u64),
    next_port: u16,
    /// All connections, by the order in which they were opened.
    connections: Vec<Connection>,
    /// Tasks that wait until a link is mended.
    blocked: Vec<Waker>,
}

struct Connection {
    ends: [NodeId; 2],
    pipes: [Weak<Mutex<Pipe>>; 2],
}

/// Connections that nobody has accepted yet.
#[derive(Default)]
struct Backlog {
    waiting: VecDeque<(SimStream, SocketAddr)>,
    acceptor: Option<Waker>,
    is_closed: bool,
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    /// What was sent, with the time of its arrival.
    chunks: VecDeque<(Duration, Bytes)>,
    bytes: usize,
    /// When the end of the stream arrives, once the sender has closed it.
    closed_at: Option<Duration>,
    /// The receiver is gone, so the sender gets an error.
    is_reader_gone: bool,
    is_reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

/// The address of a node's host.
pub fn host(node: NodeId) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + node)
}

fn node_at(address: SocketAddr) -> Option<NodeId> {
    let SocketAddr::V4(address) = address else { return None };
    u32::from(*address.ip()).checked_sub(u32::from(Ipv4Addr::new(10, 0, 0, 0)))
}

impl SimNet {
    /// A network without faults.
    pub fn new(world: &World) -> SimNet {
        let state = State {
            listening: BTreeMap::new(),
            cut: BTreeSet::new(),
            delay_micros: DELAY_MICROS,
            next_port: FIRST_FREE_PORT,
            connections: Vec::new(),
            blocked: Vec::new(),
        };
        SimNet { world: world.clone(), state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// The network as a node sees it.
    pub fn of(&self, node: NodeId) -> NodeNet {
        NodeNet { net: self.clone(), node }
    }

    /// Sets the shortest and the longest delay of all links, in µs.
    pub fn set_delay(&self, micros: (u64, u64)) {
        self.state().delay_micros = micros;
    }

    /// Cuts the link from one node to another: what is sent does not arrive until the link is mended. The other
    /// direction is not affected.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.state().cut.insert((from, to));
    }

    /// Cuts a node off from others, in both directions.
    pub fn isolate(&self, node: NodeId, others: impl IntoIterator<Item = NodeId>) {
        for other in others.into_iter().filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Mends all links. What was sent meanwhile arrives, as TCP sends it again.
    pub fn mend(&self) {
        let mut state = self.state();
        state.cut.clear();
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        blocked.into_iter().for_each(Waker::wake);
    }

    /// Resets all connections between two nodes: both ends get an error.
    pub fn reset(&self, a: NodeId, b: NodeId) {
        let mut state = self.state();
        let between = |ends: [NodeId; 2]| ends == [a, b] || ends == [b, a];
        let (reset, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.connections).into_iter().partition(|connection| between(connection.ends));
        state.connections = kept;
        drop(state);
        for pipe in reset.iter().flat_map(|connection| &connection.pipes).filter_map(Weak::upgrade) {
            let mut pipe = locked(&pipe);
            pipe.is_reset = true;
            pipe.wake();
        }
    }

    /// Whether the link from one node to another is cut.
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.state().cut.contains(&(from, to))
    }

    /// When something that is sent now arrives.
    pub fn arrival(&self) -> Duration {
        let (shortest, longest) = self.state().delay_micros;
        let micros = shortest + self.world.random().below(longest - shortest + 1);
        self.world.now() + Duration::from_micros(micros)
    }

    /// Ready when the link is whole.
    async fn until_whole(&self, from: NodeId, to: NodeId) {
        std::future::poll_fn(|context| {
            let mut state = self.state();
            if !state.cut.contains(&(from, to)) {
                return Poll::Ready(());
            }
            state.blocked.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn free_port(&self) -> u16 {
        let mut state = self.state();
        state.next_port = if state.next_port == u16::MAX { FIRST_FREE_PORT } else { state.next_port + 1 };
        state.next_port
    }

    fn connect(&self, from: SocketAddr, to: SocketAddr) -> io::Result<SimStream> {
        let backlog = self.state().listening.get(&to).cloned();
        let Some(backlog) = backlog.filter(|backlog| !locked(backlog).is_closed) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let unreachable = || io::Error::from(io::ErrorKind::HostUnreachable);
        let ends = [node_at(from).ok_or_else(unreachable)?, node_at(to).ok_or_else(unreachable)?];
        let pipes = [(); 2].map(|()| Arc::new(Mutex::new(Pipe::default())));
        let end = |own: usize, local: SocketAddr| SimStream {
            net: self.clone(),
            local,
            own: ends[own],
            peer: ends[1 - own],
            output: pipes[own].clone(),
            input: pipes[1 - own].clone(),
        };
        let mut state = self.state();
        state.connections.retain(|connection| connection.pipes.iter().any(|pipe| pipe.strong_count() > 0));
        state.connections.push(Connection { ends, pipes: pipes.each_ref().map(Arc::downgrade) });
        drop(state);
        let mut backlog = locked(&backlog);
        backlog.waiting.push_back((end(1, to), from));
        if let Some(acceptor) = backlog.acceptor.take() {
            acceptor.wake();
        }
        Ok(end(0, from))
    }
}

/// See [`SimNet::of`].
pub struct NodeNet {
    net: SimNet,
    node: NodeId,
}

impl Net for NodeNet {
    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let port = if address.port() == 0 { self.net.free_port() } else { address.port() };
        let address = SocketAddr::from((host(self.node), port));
        let backlog = Arc::new(Mutex::new(Backlog::default()));
        let mut state = self.net.state();
        if state.listening.get(&address).is_some_and(|other| !locked(other).is_closed) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.listening.insert(address, backlog.clone());
        Ok(Box::new(SimListener { backlog, address }))
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let (net, own) = (self.net.clone(), self.node);
        Box::pin(async move {
            let peer = node_at(address).ok_or(io::ErrorKind::HostUnreachable)?;
            net.world.sleep_until(net.arrival()).await;
            net.until_whole(own, peer).await;
            let stream = net.connect((host(own), net.free_port()).into(), address);
            // The answer takes its time, too.
            net.world.sleep_until(net.arrival()).await;
            net.until_whole(peer, own).await;
            Ok(Box::new(stream?) as Box<dyn Stream>)
        })
    }

    /// Host names are `node-<number>` and addresses.
    fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let known = match name.strip_prefix("node-") {
            Some(node) => node.parse().ok().map(host),
            None => name.parse().ok(),
        };
        known.map(|host| vec![(host, port).into()]).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn wildcard(&self, port: u16) -> SocketAddr {
        (host(self.node), port).into()
    }

    fn host_name(&self) -> String {
        format!("node-{}", self.node)
    }
}

struct SimListener {
    backlog: Arc<Mutex<Backlog>>,
    address: SocketAddr,
}

impl Listener for SimListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(std::future::poll_fn(|context| {
            let mut backlog = locked(&self.backlog);
            match backlog.waiting.pop_front() {
                Some((stream, from)) => Poll::Ready(Ok((Box::new(stream) as Box<dyn Stream>, from))),
                None => {
                    backlog.acceptor = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut backlog = locked(&self.backlog);
        backlog.is_closed = true;
        let waiting = std::mem::take(&mut backlog.waiting);
        drop(backlog);
        drop(waiting);
    }
}

/// One end of a connection.
struct SimStream {
    net: SimNet,
    local: SocketAddr,
    own: NodeId,
    peer: NodeId,
    output: Arc<Mutex<Pipe>>,
    input: Arc<Mutex<Pipe>>,
}

impl SimStream {
    fn close_output(&self) {
        let arrival = self.net.arrival();
        let mut output = locked(&self.output);
        let last = output.chunks.back().map_or(Duration::ZERO, |(at, _)| *at);
        output.closed_at.get_or_insert(arrival.max(last));
        output.wake();
    }

    /// Wakes the task when what arrives at `at` can be read.
    fn wake_at(&self, at: Duration, waker: &Waker) {
        if self.net.is_cut(self.peer, self.own) {
            self.net.state().blocked.push(waker.clone());
        } else {
            self.net.world.set_timer(at, waker.clone());
        }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let is_cut = self.net.is_cut(self.peer, self.own);
        let now = self.net.world.now();
        let mut input = locked(&self.input);
        if input.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let arrives = input.chunks.front().map(|(at, _)| *at).or(input.closed_at);
        match arrives {
            Some(at) if at <= now && !is_cut => {}
            Some(at) => {
                drop(input);
                self.wake_at(at, context.waker());
                return Poll::Pending;
            }
            None => {
                input.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        if let Some((_, chunk)) = input.chunks.front_mut() {
            // Any number of bytes may arrive at once.
            let most = chunk.len().min(buffer.remaining());
            let taken = 1 + self.net.world.random().below(most as u64) as usize;
            let taken = if self.net.world.random().below(4) == 0 { taken } else { most };
            buffer.put_slice(&chunk[..taken]);
            chunk.advance(taken);
            if chunk.is_empty() {
                input.chunks.pop_front();
            }
            input.bytes -= taken;
            if let Some(writer) = input.writer.take() {
                writer.wake();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let arrival = self.net.arrival();
        let mut output = locked(&self.output);
        if output.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if output.is_reader_gone || output.closed_at.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW_BYTES - output.bytes.min(WINDOW_BYTES);
        if room == 0 {
            output.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let taken = room.min(bytes.len());
        let last = output.chunks.back().map_or(Duration::ZERO, |(at, _)| *at);
        output.chunks.push_back((arrival.max(last), Bytes::copy_from_slice(&bytes[..taken])));
        output.bytes += taken;
        if let Some(reader) = output.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close_output();
        Poll::Ready(Ok(()))
    }
}

impl Stream for SimStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn socket(&self) -> Option<Socket<'_>> {
        None
    }

    fn is_closed_by_peer(&self) -> bool {
        let now = self.net.world.now();
        let input = locked(&self.input);
        let is_closed = input.closed_at.is_some_and(|at| at <= now) && !self.net.is_cut(self.peer, self.own);
        input.is_reset || is_closed
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.close_output();
        let mut input = locked(&self.input);
        input.is_reader_gone = true;
        input.wake();
    }
}
