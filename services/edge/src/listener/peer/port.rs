//! The port of the peer listener, which is taken before the other nodes are told where it is.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use adapter::adapter::Adapter;
use adapter::config::{BrokerConfig, BrokerKind, ClusterConfig};
use socket2::Socket;

use super::secret::{SecretError, Secrets};
use crate::listener::accept;

/// Addresses that are routed like any other and belong to nobody: which address of ours would speak to them? Nothing
/// is sent. Spec: RFC 5737.
const ANYWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// Why other nodes cannot reach this one: one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The shared secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Somebody else listens there.
    #[error(
        "{address} is taken by another process; stop it or choose another with --set cluster.listen={}",
        next_port(*.address)
    )]
    Taken {
        /// The configured address.
        address: SocketAddr,
    },
    /// The address cannot be used.
    #[error("cannot listen on {address}: {error}; choose another with --set cluster.listen=ADDRESS:PORT")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// Nothing says where other nodes reach this one.
    #[error(
        "no network leads to the broker, so the address of this node must be given with --set cluster.advertise=HOST:PORT"
    )]
    NoAddress,
}

fn next_port(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(7001))
}

/// A port that nobody can connect to so far.
#[derive(Debug)]
pub struct PeerPort {
    socket: Socket,
    address: SocketAddr,
    advertised: String,
    secrets: Arc<Secrets>,
}

impl PeerPort {
    /// Takes the port, where one is needed: with a broker that other processes share, or when a secret is given, so
    /// that several nodes of one process can do without a broker.
    ///
    /// # Errors
    /// [`PortError`].
    pub fn bind(broker: &BrokerConfig, cluster: &ClusterConfig) -> Result<Option<PeerPort>, PortError> {
        let has_secret = !cluster.secret_file.as_os_str().is_empty();
        if broker.kind == BrokerKind::Memory && !has_secret {
            return Ok(None);
        }
        let secrets = Arc::new(Secrets::load(&cluster.secret_file)?);
        let refused = |error| refusal(cluster.listen, error);
        let socket = accept::bind(cluster.listen).map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?.as_socket().unwrap_or(cluster.listen);
        let advertised = advertised(broker, cluster, address).ok_or(PortError::NoAddress)?;
        Ok(Some(PeerPort { socket, address, advertised, secrets }))
    }

    /// Whether the secret can be used, if one is given: who only runs an emitter needs none.
    ///
    /// # Errors
    /// [`PortError`].
    pub fn check(cluster: &ClusterConfig) -> Result<(), PortError> {
        if !cluster.secret_file.as_os_str().is_empty() {
            Secrets::load(&cluster.secret_file)?;
        }
        Ok(())
    }

    /// The bound address, with the real port where 0 was configured.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where the other nodes are told to connect to.
    pub fn advertised(&self) -> &str {
        &self.advertised
    }

    /// What requests are signed with.
    pub fn secrets(&self) -> &Arc<Secrets> {
        &self.secrets
    }

    /// Lets other nodes connect.
    ///
    /// # Errors
    /// [`PortError`]: another process may have been quicker.
    pub fn listen(self) -> Result<TcpListener, PortError> {
        accept::listen(self.socket).map_err(|error| refusal(self.address, error))
    }
}

fn refusal(address: SocketAddr, error: io::Error) -> PortError {
    if error.kind() == io::ErrorKind::AddrInUse {
        PortError::Taken { address }
    } else {
        PortError::Listen { address, error }
    }
}

/// `cluster.advertise`, or else the address that is listened on, or else the one of this machine towards the broker.
/// A broker whose name is not known yet must not keep a node from starting: then it is the one towards anywhere.
fn advertised(broker: &BrokerConfig, cluster: &ClusterConfig, listening: SocketAddr) -> Option<String> {
    if !cluster.advertise.is_empty() {
        return Some(cluster.advertise.clone());
    }
    let ip = match (listening.ip(), broker.kind) {
        (ip, _) if !ip.is_unspecified() => ip,
        (_, BrokerKind::Memory) => Ipv4Addr::LOCALHOST.into(),
        (_, BrokerKind::Redis | BrokerKind::Rabbitmq) => {
            Adapter::local_address(broker).or_else(address_towards_anywhere)?
        }
    };
    Some(SocketAddr::new(ip, listening.port()).to_string())
}

fn address_towards_anywhere() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ANYWHERE).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: BrokerKind, listening: &str, advertise: &str, expected: &str) {
        let mut broker = BrokerConfig { kind, ..BrokerConfig::default() };
        broker.redis.url = "redis://127.0.0.1:6379".to_owned();
        let cluster = ClusterConfig { advertise: advertise.to_owned(), ..ClusterConfig::default() };
        let advertised = advertised(&broker, &cluster, listening.parse().unwrap());
        assert_eq!(advertised.as_deref(), Some(expected), "{kind} {listening} {advertise}");
    }

    #[test]
    fn other_nodes_are_told_the_best_address_that_is_known() {
        check(BrokerKind::Redis, "0.0.0.0:7000", "edge-1.example:7001", "edge-1.example:7001");
        check(BrokerKind::Redis, "10.0.0.7:7000", "", "10.0.0.7:7000");
        check(BrokerKind::Redis, "0.0.0.0:7000", "", "127.0.0.1:7000");
        check(BrokerKind::Memory, "0.0.0.0:7000", "", "127.0.0.1:7000");
        check(BrokerKind::Memory, "[::1]:7000", "", "[::1]:7000");
    }

    #[test]
    fn a_node_that_is_alone_needs_no_port_and_one_among_others_a_secret() {
        let mut broker = BrokerConfig::default();
        let mut cluster = ClusterConfig { listen: ([127, 0, 0, 1], 0).into(), ..ClusterConfig::default() };
        assert!(PeerPort::bind(&broker, &cluster).unwrap().is_none());
        broker.kind = BrokerKind::Redis;
        assert!(matches!(PeerPort::bind(&broker, &cluster), Err(PortError::Secret(SecretError::Missing))));
        let path = std::env::temp_dir().join(format!("jackfield-port-{}", std::process::id()));
        std::fs::write(&path, "0123456789abcdef").unwrap();
        cluster.secret_file = path.clone();
        for kind in [BrokerKind::Memory, BrokerKind::Redis] {
            broker.kind = kind;
            let port = PeerPort::bind(&broker, &cluster).unwrap().expect("a port");
            assert_eq!(port.advertised(), port.local_addr().to_string());
            cluster.listen = port.local_addr();
            let listener = port.listen().unwrap();
            let taken = PeerPort::bind(&broker, &cluster).unwrap_err().to_string();
            assert!(
                taken.ends_with(&format!("--set cluster.listen={}", next_port(cluster.listen))),
                "{taken}"
            );
            drop(listener);
            cluster.listen.set_port(0);
        }
        std::fs::remove_file(path).unwrap();
    }
}
