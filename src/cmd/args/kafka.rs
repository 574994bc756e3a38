//! Options of connections to Kafka brokers: TLS, SASL and librdkafka properties.
//!
//! Invariant: a password is never printed or logged, and no option takes one as an argument, because every user of the
//! machine can read arguments.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::cc::ingest::kafka::settings::KafkaProperty;
use crate::manual::Note;
use crate::{Error, Result};

/// Environment variables of the connection, for manuals.
pub(crate) const VARIABLES: &[Note] =
    &[Note { name: PASSWORD_VARIABLE, text: "SASL password, if --sasl-password-file is not given." }];

/// Environment variable that holds the SASL password.
pub(crate) const PASSWORD_VARIABLE: &str = "KAFKAPASSWORD";

/// Longest accepted password.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// librdkafka properties that hold secrets.
const SECRET_PROPERTIES: [&str; 5] = [
    "sasl.password",
    "sasl.oauthbearer.client.secret",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
];

/// Options for connections to Kafka brokers.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Kafka's brokers")]
pub(crate) struct KafkaConnectionArgs {
    /// Connect with TLS and verify the brokers' certificates against the system's CA certificates
    #[arg(long)]
    tls: bool,
    /// CA certificates (PEM) to verify the brokers' certificates with; implies --tls
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Client certificate (PEM); implies --tls
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    login: SaslArgs,
    /// librdkafka property, as in kcat; repeatable; overrides the options above
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = KafkaProperty::parse)]
    properties: Vec<KafkaProperty>,
}

/// Options for SASL authentication.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Kafka's brokers")]
struct SaslArgs {
    /// SASL mechanism [default: PLAIN if --sasl-user is given]
    #[arg(long, value_enum, requires = "sasl_user")]
    sasl_mechanism: Option<SaslMechanism>,
    /// SASL user name
    #[arg(long, value_name = "USER")]
    sasl_user: Option<String>,
    /// File that holds the SASL password [default: the value of KAFKAPASSWORD]
    #[arg(long, value_name = "FILE", requires = "sasl_user")]
    sasl_password_file: Option<PathBuf>,
}

/// SASL mechanisms that lea supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SaslMechanism {
    /// Sends the password as it is; use it only with TLS
    #[value(name = "PLAIN")]
    Plain,
    /// Proves knowledge of the password without sending it
    #[value(name = "SCRAM-SHA-256")]
    Scram256,
    /// Proves knowledge of the password without sending it
    #[value(name = "SCRAM-SHA-512")]
    Scram512,
}

impl SaslMechanism {
    fn name(self) -> &'static str {
        match self {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::Scram256 => "SCRAM-SHA-256",
            SaslMechanism::Scram512 => "SCRAM-SHA-512",
        }
    }
}

impl KafkaConnectionArgs {
    /// Returns true if any of these options was given.
    pub(crate) fn is_given(&self) -> bool {
        self.wants_tls() || self.login.sasl_user.is_some() || !self.properties.is_empty()
    }

    fn wants_tls(&self) -> bool {
        self.tls || self.tls_ca.is_some() || self.tls_cert.is_some()
    }

    /// Converts the options to librdkafka properties. Reads the password file; `environment` looks up a variable.
    pub(crate) fn resolve(self, environment: impl Fn(&str) -> Option<String>) -> Result<Vec<KafkaProperty>> {
        let tls = self.wants_tls();
        require_tls_feature(tls, "TLS")?;
        let mut own = Vec::new();
        let protocol = match (tls, self.login.sasl_user.is_some()) {
            (false, false) => None,
            (true, false) => Some("ssl"),
            (false, true) => Some("sasl_plaintext"),
            (true, true) => Some("sasl_ssl"),
        };
        own.extend(protocol.map(|protocol| KafkaProperty::new("security.protocol", protocol)));
        let files = [
            ("--tls-ca", "ssl.ca.location", self.tls_ca),
            ("--tls-cert", "ssl.certificate.location", self.tls_cert),
            ("--tls-key", "ssl.key.location", self.tls_key),
        ];
        for (option, key, path) in files {
            own.extend(path.map(|path| file_property(option, key, &path)).transpose()?);
        }
        own.extend(self.login.resolve(tls, environment)?);
        for property in &self.properties {
            if SECRET_PROPERTIES.contains(&&*property.key) {
                log::warn!(
                    "password_in_arguments key={} note=\"every user of this machine can read it; use --sasl-password-file or {PASSWORD_VARIABLE}\"",
                    property.key
                );
            }
        }
        own.extend(self.properties);
        Ok(own)
    }
}

impl SaslArgs {
    /// Returns no property if no user is given.
    fn resolve(self, tls: bool, environment: impl Fn(&str) -> Option<String>) -> Result<Vec<KafkaProperty>> {
        let Some(user) = self.sasl_user else { return Ok(Vec::new()) };
        let mechanism = self.sasl_mechanism.unwrap_or(SaslMechanism::Plain);
        require_tls_feature(mechanism != SaslMechanism::Plain, mechanism.name())?;
        let variable = environment(PASSWORD_VARIABLE).filter(|password| !password.is_empty());
        let password = match (&self.sasl_password_file, variable) {
            (Some(path), _) => {
                read_password(path).map_err(|reason| file_error("--sasl-password-file", path, reason))?
            }
            (None, Some(password)) => password,
            (None, None) => {
                return Err(Error::Usage(format!(
                    "--sasl-user needs a password: give --sasl-password-file FILE, or set the environment variable {PASSWORD_VARIABLE}"
                )));
            }
        };
        if mechanism == SaslMechanism::Plain && !tls {
            log::warn!(
                "password_plaintext mechanism=PLAIN note=\"the password crosses the network unencrypted; use --tls\""
            );
        }
        Ok(vec![
            KafkaProperty::new("sasl.mechanism", mechanism.name()),
            KafkaProperty::new("sasl.username", &user),
            KafkaProperty::new("sasl.password", &password),
        ])
    }
}

/// Returns an error if OpenSSL is needed and this build does not have it.
fn require_tls_feature(needed: bool, what: &str) -> Result<()> {
    if !needed || cfg!(feature = "kafka-tls") {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{what} needs OpenSSL, and this lea was built without it: build with `cargo build --release --features kafka-tls`"
    )))
}

/// Returns the property for a file that librdkafka reads. The file is opened once, so that a missing file is an error now
/// and not at the first connection.
fn file_property(option: &str, key: &str, path: &Path) -> Result<KafkaProperty> {
    File::open(path).map_err(|reason| file_error(option, path, reason))?;
    let text = path.to_str().ok_or_else(|| Error::Usage(format!("{option}: the path must be UTF-8")))?;
    Ok(KafkaProperty::new(key, text))
}

fn file_error(option: &str, path: &Path, reason: io::Error) -> Error {
    Error::Usage(format!("{option} {}: {reason}", path.display()))
}

/// Reads a one-line file and strips its line end.
fn read_password(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(PASSWORD_BYTES_MAX + 1).read_to_string(&mut text)?;
    let password = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    let invalid = |reason: &str| Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    match password {
        "" => invalid("the file is empty"),
        _ if text.len() as u64 > PASSWORD_BYTES_MAX => invalid("the password is longer than 4,096 bytes"),
        _ if password.contains(['\n', '\0']) => invalid("the password has more than one line"),
        _ => Ok(password.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        connect: KafkaConnectionArgs,
    }

    fn resolve(args: &[&str], variable: Option<&str>) -> Result<Vec<String>, String> {
        let cli = Cli::try_parse_from([&["lea"], args].concat()).map_err(|error| error.to_string())?;
        let environment = |name: &str| (name == "KAFKAPASSWORD").then(|| variable.map(str::to_owned))?;
        let properties = cli.connect.resolve(environment).map_err(|error| error.to_string())?;
        Ok(properties.iter().map(|property| format!("{}={}", property.key, property.value())).collect())
    }

    #[track_caller]
    fn check(args: &[&str], variable: Option<&str>, expected: &[&str]) {
        let got = resolve(args, variable);
        assert_eq!(got, Ok(expected.iter().map(|text| text.to_string()).collect()));
    }

    #[track_caller]
    fn check_refused(args: &[&str], variable: Option<&str>, expected: &str) {
        let got = resolve(args, variable).unwrap_err();
        assert!(got.contains(expected), "{got}");
    }

    #[test]
    fn a_user_logs_in_with_a_password_from_a_file_or_the_environment() {
        let login = |password| {
            ["security.protocol=sasl_plaintext", "sasl.mechanism=PLAIN", "sasl.username=lea", password]
        };
        check(&[], Some("unused"), &[]);
        check(&["--sasl-user", "lea"], Some("secret"), &login("sasl.password=secret"));
        check_refused(&["--sasl-user", "lea"], None, "--sasl-password-file FILE");
        check_refused(&["--sasl-user", "lea"], Some(""), "--sasl-password-file FILE");
        check_refused(&["--sasl-mechanism", "PLAIN"], Some("secret"), "--sasl-user");
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let args = ["--sasl-user", "lea", "--sasl-mechanism", "PLAIN", "--sasl-password-file", path];
        for (text, password) in [("a b\n", "sasl.password=a b"), ("x=y\r\n", "sasl.password=x=y")] {
            std::fs::write(path, text).unwrap();
            check(&args, Some("unused"), &login(password));
        }
        for text in ["", "\n", "a\nb\n", "a\0", &"a".repeat(4097)] {
            std::fs::write(path, text).unwrap();
            check_refused(&args, None, "--sasl-password-file");
        }
        check_refused(
            &["--sasl-user", "lea", "--sasl-password-file", "/nowhere"],
            None,
            "/nowhere: No such file",
        );
        // -X properties come last, so they override the options.
        let mut expected = login("sasl.password=secret").to_vec();
        expected.push("sasl.username=other");
        check(&["-X", "sasl.username=other", "--sasl-user", "lea"], Some("secret"), &expected);
    }

    #[test]
    #[cfg(not(feature = "kafka-tls"))]
    fn tls_options_without_openssl_are_errors() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let scram = ["--sasl-user", "lea", "--sasl-mechanism", "SCRAM-SHA-512"];
        for args in [&["--tls"][..], &["--tls-ca", path], &["--tls-cert", path, "--tls-key", path], &scram] {
            check_refused(args, Some("secret"), "--features kafka-tls");
        }
    }

    #[test]
    #[cfg(feature = "kafka-tls")]
    fn missing_tls_files_are_errors() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let ca = format!("ssl.ca.location={path}");
        check(&["--tls-ca", path], None, &["security.protocol=ssl", &ca]);
        check_refused(&["--tls-ca", "/nowhere"], None, "--tls-ca /nowhere: No such file");
        check_refused(&["--tls-cert", path], None, "--tls-key");
    }
}
