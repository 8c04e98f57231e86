//! Where notifications may go: to public addresses, and to networks that the
//! configuration names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: an address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network, such as 10.0.0.0/8 or fd00::/8")]
pub struct NetworkError(String);

impl FromStr for Network {
    type Err = NetworkError;
    /// Reads `ADDRESS/BITS`, where no bit behind those that count is set, or one address.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| wrong())?,
            None => width,
        };
        let network = Self { address, bits };
        let clean = bits <= width && network.masked(address) == Some(value(address));
        clean.then_some(network).ok_or_else(wrong)
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl<'de> serde::Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An address as a number.
fn value(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Network {
    const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Self {
        let address = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        Self { address, bits }
    }

    const fn v6(a: u16, b: u16, bits: u8) -> Self {
        let address = IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0));
        Self { address, bits }
    }

    /// The bits of an address that count, if it is of the network's family.
    fn masked(&self, address: IpAddr) -> Option<u128> {
        let width: u32 = match (self.address, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) => 32,
            (IpAddr::V6(_), IpAddr::V6(_)) => 128,
            _ => return None,
        };
        let free = width.checked_sub(self.bits.into())?;
        let mask = u128::MAX.checked_shl(free).unwrap_or(0);
        Some(value(address) & mask)
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.masked(address) == Some(value(self.address))
    }
}

/// What of IPv4 is not public. Source: IANA's registry of special-purpose IPv4
/// addresses, what in it is not globally reachable, and multicast.
const NOT_PUBLIC_V4: [Network; 16] = [
    Network::v4(0, 0, 0, 0, 8),          // this network, and "unspecified"
    Network::v4(10, 0, 0, 0, 8),         // private
    Network::v4(100, 64, 0, 0, 10),      // shared by a carrier's NAT
    Network::v4(127, 0, 0, 0, 8),        // loopback
    Network::v4(169, 254, 0, 0, 16),     // link-local, and the metadata of clouds
    Network::v4(172, 16, 0, 0, 12),      // private
    Network::v4(192, 0, 0, 0, 24),       // protocol assignments
    Network::v4(192, 0, 2, 0, 24),       // documentation
    Network::v4(192, 88, 99, 0, 24),     // 6to4 relays, given up
    Network::v4(192, 168, 0, 0, 16),     // private
    Network::v4(198, 18, 0, 0, 15),      // benchmarks
    Network::v4(198, 51, 100, 0, 24),    // documentation
    Network::v4(203, 0, 113, 0, 24),     // documentation
    Network::v4(224, 0, 0, 0, 4),        // multicast
    Network::v4(240, 0, 0, 0, 4),        // reserved
    Network::v4(255, 255, 255, 255, 32), // broadcast
];

/// The one part of IPv6 from which public addresses are given out. Outside of it
/// are loopback, unspecified, IPv4-mapped, NAT64, unique-local, link-local and multicast.
/// Source: IANA's registry of the IPv6 address space.
const GLOBAL_V6: Network = Network::v6(0x2000, 0, 3);
/// What in it is not public. Source: IANA's registry of special-purpose IPv6 addresses.
const NOT_PUBLIC_V6: [Network; 4] = [
    Network::v6(0x2001, 0, 23),     // protocol assignments, Teredo among them
    Network::v6(0x2001, 0xdb8, 32), // documentation
    Network::v6(0x2002, 0, 16),     // 6to4, which embeds IPv4
    Network::v6(0x3fff, 0, 20),     // documentation
];

/// Whether anybody can be reached at an address from anywhere.
fn is_public(address: IpAddr) -> bool {
    let within = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
    match address {
        IpAddr::V4(_) => !within(&NOT_PUBLIC_V4),
        IpAddr::V6(_) => GLOBAL_V6.contains(address) && !within(&NOT_PUBLIC_V6),
    }
}

/// Networks that notifications may go to although they are not public.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Allowed(Vec<Network>);

impl Allowed {
    /// These networks.
    pub const fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Network> {
        self.0.iter()
    }

    /// Whether notifications may go to an address.
    pub fn permits(&self, address: IpAddr) -> bool {
        // What is written as IPv4 in IPv6 is where the IPv4 address is.
        let reached = address.to_canonical();
        let named = |network: &Network| network.contains(reached) || network.contains(address);
        self.0.iter().any(named) || is_public(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_where_only_this_network_gets() {
        let none = Allowed::default();
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
        ] {
            assert!(!none.permits(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_open() {
        let none = Allowed::default();
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450::1",
            "3ffe::1",
        ] {
            assert!(none.permits(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_configuration_opens_networks() {
        let networks = ["10.1.0.0/16", "127.0.0.1", "fd00::/8", "64:ff9b::/96"];
        let networks = networks.iter().map(|text| text.parse().unwrap());
        let allowed = Allowed::new(networks.collect());
        for (address, open) in [
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("::ffff:10.1.0.1", true),
            ("::ffff:10.2.0.1", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("fd01::1", true),
            ("fc01::1", false),
            ("64:ff9b::808:808", true),
            ("8.8.8.8", true),
        ] {
            assert_eq!(allowed.permits(address.parse().unwrap()), open, "{address}");
        }
    }

    #[test]
    fn a_network_is_read_in_its_one_form() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("192.168.1.1", "192.168.1.1/32"),
            ("fd00::/8", "fd00::/8"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::/129",
            "fd00::1/8",
            "10/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "localhost",
            "10.0.0.0/8/8",
            "0x7f.1/8",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.1.2.3".parse().unwrap()));
        assert!(!all.contains("::1".parse().unwrap()));
    }
}
