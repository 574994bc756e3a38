//! Authenticates users with HTTP basic authentication (RFC 7617). Runs on the threads of the HTTP connections.
//!
//! Checking an argon2 hash takes tens of milliseconds by design. So the result is cached under a keyed hash of the header,
//! and a look-up costs a microsecond. The key is random and is different in each process.
//!
//! Invariant: at most two passwords are hashed at the same time, and at most one per peer. Some requests wait for their
//! turn; further ones get [`AuthError::Busy`].

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

use super::request::Request;

/// The value of the WWW-Authenticate header, which requests a password.
pub(crate) const CHALLENGE: &str = "Basic realm=\"security\" charset=\"UTF-8\"";

/// How long a valid password stays in the cache after its last use.
const VALID_TTL_MS: u64 = 5 * 60_000;

/// How long an invalid password stays in the cache, so that repeating it costs nothing.
const INVALID_TTL_MS: u64 = 60_000;

/// Entries in each of the two caches.
const REMEMBERED_MAX: usize = 1_024;

/// Passwords of all peers that are hashed at the same time.
const CHECKS_MAX: usize = 2;

/// Requests that wait to be checked, and how long each waits.
const WAITING_MAX: usize = 32;
const WAITING_MS: u64 = 5_000;

/// Length limit of the Authorization header. Real passwords are far shorter.
const HEADER_BYTES_MAX: usize = 1_024;

/// Limits on the cost of a hash in the configuration. A higher cost could block the service.
const MEMORY_KIB_MAX: u32 = 64 << 10;
const ROUNDS_MAX: u32 = 64;
const LANES_MAX: u32 = 16;

/// A user from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, which contains no colon.
    pub name: String,
    /// The argon2 hash of the password as a PHC string: `$argon2id$v=19$m=19456,t=2,p=1$...`.
    pub password_hash: String,
}

/// The reason why a user in the configuration is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUser {
    #[error("invalid user name {0:?}: it is empty or contains a colon")]
    Name(String),
    #[error("duplicate user {0:?}")]
    Duplicate(String),
    #[error(
        "invalid password hash of user {0:?}: not an argon2 PHC string such as $argon2id$... (make one with `lea events hash-password`)"
    )]
    Hash(String),
    /// Checking the hash costs too much.
    #[error(
        "the password hash of user {0:?} is too expensive: the limits are m={MEMORY_KIB_MAX}, t={ROUNDS_MAX}, p={LANES_MAX}"
    )]
    Cost(String),
}

/// The reason why a request is not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("missing credentials")]
    MissingCredentials,
    #[error("the Authorization header is too long")]
    HeaderTooLong,
    #[error("unable to authenticate: wrong user or password")]
    WrongCredentials,
    #[error("too many passwords are being checked, try again")]
    Busy,
}

/// The users and a cache of checked passwords. Without users every request is allowed.
pub struct Users {
    users: Vec<User>,
    key: [u8; 32],
    state: Mutex<AuthState>,
    changed: Condvar,
}

struct AuthState {
    valid: LruCache<HeaderHash, Instant>,
    invalid: LruCache<HeaderHash, Instant>,
    /// The headers and peers whose passwords are being hashed.
    checking: Vec<(HeaderHash, IpAddr)>,
    waiting: usize,
}

/// The keyed hash of a header.
type HeaderHash = [u8; 32];

impl Users {
    /// Checks the users of the configuration.
    pub fn new(users: Vec<User>) -> Result<Users, InvalidUser> {
        for (nth, user) in users.iter().enumerate() {
            let name = || user.name.clone();
            if user.name.is_empty() || user.name.contains(':') {
                return Err(InvalidUser::Name(name()));
            }
            if users[..nth].iter().any(|other| other.name == user.name) {
                return Err(InvalidUser::Duplicate(name()));
            }
            check_hash(user)?;
        }
        let remembered = NonZeroUsize::new(REMEMBERED_MAX).expect("the bound is not 0");
        let state = AuthState {
            valid: LruCache::new(remembered),
            invalid: LruCache::new(remembered),
            checking: Vec::new(),
            waiting: 0,
        };
        Ok(Users { users, key: random_bytes(), state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Allows every request. Use it only for listeners on loopback.
    pub fn allow_all() -> Users {
        Users::new(Vec::new()).expect("no user is invalid")
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Accepts a request with a valid password, or any request if there are no users.
    pub fn check(&self, request: &Request) -> Result<(), AuthError> {
        if self.users.is_empty() {
            return Ok(());
        }
        let header = request.header("authorization").ok_or(AuthError::MissingCredentials)?;
        if header.len() > HEADER_BYTES_MAX {
            return Err(AuthError::HeaderTooLong);
        }
        let hash = self.hash_header(header);
        let is_valid = match self.claim_check(hash, request.peer().ip())? {
            PasswordCheck::Known(is_valid) => is_valid,
            PasswordCheck::Claimed => {
                // Dropping the guard ends the check, even if the hash function panics.
                let mut guard = CheckGuard { users: self, hash, is_valid: false };
                guard.is_valid = self.is_valid(header);
                guard.is_valid
            }
        };
        if is_valid { Ok(()) } else { Err(AuthError::WrongCredentials) }
    }

    fn hash_header(&self, header: &[u8]) -> HeaderHash {
        // The key fills the first block of the hash; the header follows.
        Sha256::new().chain_update(self.key).chain_update([0; 32]).chain_update(header).finalize().into()
    }

    /// Returns the cached result for a header, or claims the check of its password.
    fn claim_check(&self, hash: HeaderHash, peer: IpAddr) -> Result<PasswordCheck, AuthError> {
        let mut state = self.state();
        let until = Instant::now() + Duration::from_millis(WAITING_MS);
        loop {
            let now = Instant::now();
            if let Some(known) = state.remembered(&hash, now) {
                return Ok(PasswordCheck::Known(known));
            }
            let is_same = |(other, ip): &(HeaderHash, IpAddr)| *other == hash || *ip == peer;
            if state.checking.len() < CHECKS_MAX && !state.checking.iter().any(is_same) {
                state.checking.push((hash, peer));
                return Ok(PasswordCheck::Claimed);
            }
            if now >= until || state.waiting >= WAITING_MAX {
                return Err(AuthError::Busy);
            }
            state.waiting += 1;
            state = self
                .changed
                .wait_timeout(state, until - now)
                .map_or_else(|error| error.into_inner().0, |(state, _)| state);
            state.waiting -= 1;
        }
    }

    fn is_valid(&self, header: &[u8]) -> bool {
        let Some((name, password)) = credentials(header) else { return false };
        let user = self.users.iter().find(|user| user.name.as_bytes() == name);
        // For an unknown user another hash is checked, so that the time does not reveal which names exist.
        let Some(checked) = user.or(self.users.first()) else { return false };
        let Ok(hash) = PasswordHash::new(&checked.password_hash) else { return false };
        let is_equal = Argon2::default().verify_password(&password, &hash).is_ok();
        is_equal && user.is_some()
    }

    fn state(&self) -> MutexGuard<'_, AuthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum PasswordCheck {
    Known(bool),
    /// The caller has to check the password.
    Claimed,
}

impl AuthState {
    fn remembered(&mut self, hash: &HeaderHash, now: Instant) -> Option<bool> {
        if let Some(until) = self.valid.get_mut(hash)
            && now < *until
        {
            *until = now + Duration::from_millis(VALID_TTL_MS);
            return Some(true);
        }
        match self.invalid.get(hash) {
            Some(until) if now < *until => Some(false),
            _ => None,
        }
    }
}

/// Stores the result of a check when it is dropped, even after a panic.
struct CheckGuard<'a> {
    users: &'a Users,
    hash: HeaderHash,
    is_valid: bool,
}

impl Drop for CheckGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.users.state();
        state.checking.retain(|(hash, _)| *hash != self.hash);
        let now = Instant::now();
        match self.is_valid {
            true => drop(state.valid.put(self.hash, now + Duration::from_millis(VALID_TTL_MS))),
            false => drop(state.invalid.put(self.hash, now + Duration::from_millis(INVALID_TTL_MS))),
        }
        drop(state);
        self.users.changed.notify_all();
    }
}

/// Returns the hash of a password for the configuration.
pub fn hash_password(password: &[u8]) -> Option<String> {
    let salt: [u8; 16] = random_bytes::<32>()[..16].try_into().ok()?;
    Argon2::default().hash_password_with_salt(password, &salt).ok().map(|hash| hash.to_string())
}

/// Returns the name and password in a header `Basic BASE64`.
fn credentials(header: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let text = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = text.iter().position(|byte| *byte == b':')?;
    Some((text[..colon].to_vec(), text[colon + 1..].to_vec()))
}

fn check_hash(user: &User) -> Result<(), InvalidUser> {
    let invalid = || InvalidUser::Hash(user.name.clone());
    let hash = PasswordHash::new(&user.password_hash).map_err(|_| invalid())?;
    if !hash.algorithm.as_str().starts_with("argon2") || hash.hash.is_none() || hash.salt.is_none() {
        return Err(invalid());
    }
    let params = argon2::Params::try_from(&hash).map_err(|_| invalid())?;
    let (memory, rounds, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    match memory <= MEMORY_KIB_MAX && rounds <= ROUNDS_MAX && lanes <= LANES_MAX {
        true => Ok(()),
        false => Err(InvalidUser::Cost(user.name.clone())),
    }
}

/// Returns random bytes from the kernel.
fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(more) => filled += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("cannot get random bytes from the kernel: {error}"),
        }
    }
    bytes
}
