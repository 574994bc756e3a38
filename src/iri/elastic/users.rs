//! Who may ask: names and passwords by HTTP basic authentication (RFC 7617). Runs on the connections' threads.
//!
//! A password's argon2 hash takes tens of milliseconds by design. So what was right is remembered under a keyed hash of
//! the header, whose key is made by chance for each process, and a look-up costs a microsecond. What was wrong is
//! remembered too. Hashing itself is bounded: two at once, one a peer; a few wait, more are told to come again.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lru::LruCache;
use sha2::{Digest, Sha256};

use super::failure::Failure;
use crate::http::Request;

/// The header that asks for a password.
pub const CHALLENGE: &str = "Basic realm=\"security\" charset=\"UTF-8\"";

/// How long a right password is remembered after its last use.
const RIGHT_MS: u64 = 5 * 60_000;

/// How long a wrong one is: long enough that sending it again costs nothing.
const WRONG_MS: u64 = 60_000;

/// Passwords remembered, right and wrong ones each.
const REMEMBERED_MAX: usize = 1_024;

/// Hashes computed at once, in all; a peer has one.
const CHECKS_MAX: usize = 2;

/// Requests that wait for their turn, and how long.
const WAITING_MAX: usize = 32;
const WAITING_MS: u64 = 5_000;

/// A header's bytes; a password of a person is far shorter.
const HEADER_BYTES_MAX: usize = 1_024;

/// Memory and rounds of a hash in the configuration: more would be a way to stop the service by accident.
const MEMORY_KIB_MAX: u32 = 64 << 10;
const ROUNDS_MAX: u32 = 64;
const LANES_MAX: u32 = 16;

/// A user of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name; without a colon.
    pub name: String,
    /// The password's argon2 hash as a PHC string, `$argon2id$v=19$m=19456,t=2,p=1$...`.
    pub password_hash: String,
}

/// Why a user of the configuration cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The name.
    #[error("a user's name is not empty and has no colon, but one is {0:?}")]
    Name(String),
    /// Two of one name.
    #[error("the user {0:?} is there twice")]
    Twice(String),
    /// The hash.
    #[error("the password hash of the user {0:?} is no argon2 hash as a PHC string ($argon2id$...)")]
    Hash(String),
    /// The hash asks for more than a look-up may take.
    #[error(
        "the password hash of the user {0:?} takes too much: at most m={MEMORY_KIB_MAX}, t={ROUNDS_MAX}, p={LANES_MAX}"
    )]
    Cost(String),
}

/// The users, and what is remembered of their passwords. Without users anyone may ask.
pub struct Users {
    users: Vec<User>,
    key: [u8; 32],
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    right: LruCache<Seen, Instant>,
    wrong: LruCache<Seen, Instant>,
    /// Whose passwords are hashed now.
    checking: Vec<(Seen, IpAddr)>,
    waiting: usize,
}

/// The keyed hash of a header.
type Seen = [u8; 32];

impl Users {
    /// Checks the users of the configuration.
    pub fn new(users: Vec<User>) -> Result<Users, Invalid> {
        for (nth, user) in users.iter().enumerate() {
            let name = || user.name.clone();
            if user.name.is_empty() || user.name.contains(':') {
                return Err(Invalid::Name(name()));
            }
            if users[..nth].iter().any(|other| other.name == user.name) {
                return Err(Invalid::Twice(name()));
            }
            check_hash(user)?;
        }
        let remembered = NonZeroUsize::new(REMEMBERED_MAX).expect("the bound is not 0");
        let state = State {
            right: LruCache::new(remembered),
            wrong: LruCache::new(remembered),
            checking: Vec::new(),
            waiting: 0,
        };
        Ok(Users { users, key: random(), state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Nobody needs a password: for loopback alone.
    pub fn none() -> Users {
        Users::new(Vec::new()).expect("no user is invalid")
    }

    /// True where anyone may ask.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Lets a request pass that has a right password, or any where there are no users.
    pub fn check(&self, request: &Request) -> Result<(), Failure> {
        if self.users.is_empty() {
            return Ok(());
        }
        let Some(header) = request.header("authorization") else {
            let reason = format!("missing authentication credentials for REST request [{}]", request.path());
            return Err(refused(reason));
        };
        if header.len() > HEADER_BYTES_MAX {
            return Err(refused("the Authorization header is too long"));
        }
        let seen = self.seen(header);
        match self.turn(seen, request.peer().ip())? {
            Turn::Known(right) => answered(right),
            Turn::Mine => {
                let turn = Ended { users: self, seen, right: false };
                self.hash(header, turn)
            }
        }
    }

    /// Hashes a password; the turn ends with it, whatever happens.
    fn hash(&self, header: &[u8], mut turn: Ended<'_>) -> Result<(), Failure> {
        turn.right = self.is_right(header);
        let right = turn.right;
        drop(turn);
        answered(right)
    }

    fn seen(&self, header: &[u8]) -> Seen {
        // The key is a block of its own before the header, which has a bounded length.
        Sha256::new().chain_update(self.key).chain_update([0; 32]).chain_update(header).finalize().into()
    }

    /// What is known of a header, or leave to find out.
    fn turn(&self, seen: Seen, peer: IpAddr) -> Result<Turn, Failure> {
        let mut state = self.state();
        let until = Instant::now() + Duration::from_millis(WAITING_MS);
        loop {
            let now = Instant::now();
            if let Some(known) = state.known(&seen, now) {
                return Ok(Turn::Known(known));
            }
            let taken = |(one, ip): &(Seen, IpAddr)| *one == seen || *ip == peer;
            if state.checking.len() < CHECKS_MAX && !state.checking.iter().any(taken) {
                state.checking.push((seen, peer));
                return Ok(Turn::Mine);
            }
            if now >= until || state.waiting >= WAITING_MAX {
                return Err(Failure::full("too many passwords are being checked, try again"));
            }
            state.waiting += 1;
            state = self
                .changed
                .wait_timeout(state, until - now)
                .map_or_else(|error| error.into_inner().0, |(state, _)| state);
            state.waiting -= 1;
        }
    }

    fn is_right(&self, header: &[u8]) -> bool {
        let Some((name, password)) = credentials(header) else { return false };
        let user = self.users.iter().find(|user| user.name.as_bytes() == name);
        // A name that is not there takes as long as one that is.
        let Some(against) = user.or(self.users.first()) else { return false };
        let Ok(hash) = PasswordHash::new(&against.password_hash) else { return false };
        let fits = Argon2::default().verify_password(&password, &hash).is_ok();
        fits && user.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Turn {
    Known(bool),
    /// The caller hashes it, and says what came of it.
    Mine,
}

impl State {
    fn known(&mut self, seen: &Seen, now: Instant) -> Option<bool> {
        if let Some(until) = self.right.get_mut(seen)
            && now < *until
        {
            *until = now + Duration::from_millis(RIGHT_MS);
            return Some(true);
        }
        match self.wrong.get(seen) {
            Some(until) if now < *until => Some(false),
            _ => None,
        }
    }
}

/// The end of a turn, also where hashing panics.
struct Ended<'a> {
    users: &'a Users,
    seen: Seen,
    right: bool,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut state = self.users.state();
        state.checking.retain(|(seen, _)| *seen != self.seen);
        let now = Instant::now();
        match self.right {
            true => drop(state.right.put(self.seen, now + Duration::from_millis(RIGHT_MS))),
            false => drop(state.wrong.put(self.seen, now + Duration::from_millis(WRONG_MS))),
        }
        drop(state);
        self.users.changed.notify_all();
    }
}

/// Makes the hash of a password for the configuration.
pub fn hash_password(password: &[u8]) -> Option<String> {
    let salt: [u8; 16] = random::<32>()[..16].try_into().ok()?;
    Argon2::default().hash_password_with_salt(password, &salt).ok().map(|hash| hash.to_string())
}

fn answered(right: bool) -> Result<(), Failure> {
    if right { Ok(()) } else { Err(refused("unable to authenticate: wrong user or password")) }
}

fn refused(reason: impl Into<String>) -> Failure {
    Failure::new(401, "security_exception", reason)
}

/// Name and password of `Basic BASE64`.
fn credentials(header: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let text = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = text.iter().position(|byte| *byte == b':')?;
    Some((text[..colon].to_vec(), text[colon + 1..].to_vec()))
}

fn check_hash(user: &User) -> Result<(), Invalid> {
    let invalid = || Invalid::Hash(user.name.clone());
    let hash = PasswordHash::new(&user.password_hash).map_err(|_| invalid())?;
    if !hash.algorithm.as_str().starts_with("argon2") || hash.hash.is_none() || hash.salt.is_none() {
        return Err(invalid());
    }
    let params = argon2::Params::try_from(&hash).map_err(|_| invalid())?;
    let (memory, rounds, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    match memory <= MEMORY_KIB_MAX && rounds <= ROUNDS_MAX && lanes <= LANES_MAX {
        true => Ok(()),
        false => Err(Invalid::Cost(user.name.clone())),
    }
}

/// Bytes by chance, from the kernel.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(more) => filled += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the kernel gives no random bytes: {error}"),
        }
    }
    bytes
}
