//! Where the server listens: addresses are looked up and bound, and told as URLs.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs},
};

use socket2::{Domain, Socket, Type};

use crate::config::Listen;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How often a free port is drawn again that turns out to be taken in the other address family.
const TRIES: usize = 20;

/// Binds the listeners of all addresses, and says where to point a browser by `http` or `https`; one
/// that is named twice is bound once.
///
/// # Errors
///
/// As [`bind`].
pub fn bind_all(listen: &[Listen], scheme: &str) -> io::Result<(Vec<TcpListener>, Vec<String>)> {
    let mut listeners = Vec::new();
    let mut reached = Vec::new();
    for (nth, address) in listen.iter().enumerate() {
        let said_before = listen[..nth].contains(address);
        if said_before && address.port != 0 {
            continue;
        }
        let bound = bind(address)?;
        reached.extend(urls(address, &bound, scheme));
        listeners.extend(bound);
    }
    Ok((listeners, reached))
}

/// Binds the listeners of an address: `localhost` is both 127.0.0.1 and \[::1\], as far as the
/// machine has them, on one port.
///
/// # Errors
///
/// Names the address, and says so where its port is taken.
pub fn bind(listen: &Listen) -> io::Result<Vec<TcpListener>> {
    let mut last = None;
    for _ in 0..TRIES {
        match bind_once(listen) {
            // A free port of one family may be taken in the other.
            Err(err) if listen.port == 0 && err.kind() == io::ErrorKind::AddrInUse => {
                last = Some(err);
            }
            bound => return bound.map_err(|err| explain(listen, &err)),
        }
    }
    let err = last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into());
    Err(explain(listen, &err))
}

fn bind_once(listen: &Listen) -> io::Result<Vec<TcpListener>> {
    let mut port = listen.port;
    let mut listeners = Vec::new();
    let mut missing = None;
    for ip in addresses(listen)? {
        match bind_address(SocketAddr::new(ip, port)) {
            Ok(listener) => {
                port = listener.local_addr()?.port();
                listeners.push(listener);
            }
            Err(err) if is_missing_family(&err) => missing = Some(err),
            Err(err) => return Err(err),
        }
    }
    match missing {
        Some(err) if listeners.is_empty() => Err(err),
        _ => Ok(listeners),
    }
}

fn addresses(listen: &Listen) -> io::Result<Vec<IpAddr>> {
    if listen.host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let mut found = (listen.host.as_str(), listen.port).to_socket_addrs()?;
    let first = found.next().map(|address| address.ip());
    first
        .map(|ip| vec![ip])
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn bind_address(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let IpAddr::V6(ip) = address.ip() {
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether the machine lacks the address family, or only loopback of it.
fn is_missing_family(err: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    err.kind() == io::ErrorKind::AddrNotAvailable || err.raw_os_error() == Some(EAFNOSUPPORT)
}

fn explain(listen: &Listen, err: &io::Error) -> io::Error {
    let why = match err.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is taken, perhaps by another tallyroom; stop that, or choose another port \
             with --listen"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "it is not allowed; ports below 1024 need a privilege".to_owned()
        }
        _ => err.to_string(),
    };
    io::Error::new(err.kind(), format!("cannot listen on {listen}: {why}"))
}

/// Where to point a browser: one URL for each address that somebody can reach.
pub fn urls(listen: &Listen, listeners: &[TcpListener], scheme: &str) -> Vec<String> {
    let Some(address) = listeners
        .first()
        .and_then(|listener| listener.local_addr().ok())
    else {
        return Vec::new();
    };
    let url = |host: &str| format!("{scheme}://{host}:{}/", address.port());
    if !address.ip().is_unspecified() {
        return match listen.host.contains(':') {
            true => vec![url(&format!("[{}]", listen.host))],
            false => vec![url(&listen.host)],
        };
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let reached = interfaces
        .iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .filter(|interface| address.is_ipv6() || interface.ip().is_ipv4())
        .map(|interface| match interface.ip() {
            IpAddr::V4(ip) => url(&ip.to_string()),
            IpAddr::V6(ip) => url(&format!("[{ip}]")),
        });
    std::iter::once(url("localhost")).chain(reached).collect()
}
