//! Stream names (protocol, section 1): what they say, and the file name that is made of them.

use serde::{Deserialize, Serialize};

/// The fields of `<userid>-<providerid>-<serviceid>_<DD_MM_YYYY_HH:MM:SS>.pcap`, as sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFields {
    /// The intercepted subscriber, as the sender writes it.
    pub user_id: String,
    /// The provider.
    pub provider_id: String,
    /// The service.
    pub service_id: String,
    /// The start in the sender's local time, as sent: `21_11_2026_20:59:41`.
    pub start: String,
}

/// The fields of a name of the usual form; `None` for any other name.
pub fn fields(name: &[u8]) -> Option<NameFields> {
    let _ = name;
    None
}

/// The safe file name of a stream name: injective, the name itself where that is safe.
pub fn file_name(name: &[u8]) -> String {
    let _ = name;
    String::new()
}

/// The file name of a part: part 1 is the file name itself, part n is `FILE.n`.
pub fn part_file_name(file_name: &str, part: u32) -> String {
    if part == 1 { file_name.to_owned() } else { format!("{file_name}.{part}") }
}
