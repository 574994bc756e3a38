//! Sending captures as real senders do.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{Error, Result};

/// Raises the soft limit of open descriptors to the hard one: every stream holds a socket.
pub fn raise_descriptor_limit() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)
        .map_err(|error| Error::system("raise the limit of open descriptors")(error.into()))
}
