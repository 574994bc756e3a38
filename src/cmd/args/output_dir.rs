//! Options for the output directory, which all commands that store streams share.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::units;
use crate::cc::vault::{Access, RotationLimits, VaultConfig};
use crate::{Error, Result};

/// Options for the output directory.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Storage")]
pub(crate) struct OutputArgs {
    /// Output directory for stream files and their manifests; created if it does not exist
    #[arg(short, long, value_name = "DIR", default_value = "interceptions")]
    output: PathBuf,
    /// Hash algorithm for stream files
    #[arg(long, value_enum, default_value_t = HashAlgorithm::Sha256)]
    hash: HashAlgorithm,
    /// Permission bits of stream files and manifests, in octal; new directories get the matching ones
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = units::mode)]
    file_mode: u32,
    /// Group of stream files, manifests and new directories, by name or number
    #[arg(long, value_name = "GROUP")]
    file_group: Option<String>,
    /// Interval between fsyncs of a growing file
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    sync_interval: Duration,
    /// Memory for partial packets over all streams; at the limit the largest is written before it is complete
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = units::bytes)]
    partial_packet_memory: u64,
    /// Disk space that stays free: below it streams wait, as on a full disk [default: 16M, for manifests]
    #[arg(long, value_name = "BYTES", default_value = "16M", hide_default_value = true, value_parser = units::bytes)]
    reserve_disk: u64,
}

/// Hash algorithm for stream files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HashAlgorithm {
    /// SHA-256, updated as bytes arrive
    Sha256,
    /// No hash
    None,
}

impl OutputArgs {
    /// Checks the options. `descriptors` is the number of descriptors that stream files may use.
    pub(crate) fn resolve(self, descriptors: usize) -> Result<VaultConfig> {
        let group = self.file_group;
        Ok(VaultConfig {
            dir: self.output,
            access: Access {
                file_mode: self.file_mode,
                group: group.as_deref().map(look_up_group).transpose()?,
            },
            hash: self.hash == HashAlgorithm::Sha256,
            partial_packet_bytes_max: self.partial_packet_memory,
            descriptors,
            free_bytes_min: self.reserve_disk,
            sync_interval: self.sync_interval.max(Duration::from_millis(1)),
            continue_within: None,
            rotation: RotationLimits::default(),
        })
    }
}

/// Returns the ID of a group that is given by name or number.
pub(crate) fn look_up_group(group: &str) -> Result<u32> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    match nix::unistd::Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid.as_raw()),
        Ok(None) => Err(Error::Usage(format!("group {group:?} does not exist"))),
        Err(error) => Err(Error::System { act: "look up the group", source: error.into() }),
    }
}
