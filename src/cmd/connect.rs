//! Options of connections to Kafka's brokers, which several commands share: TLS, SASL, properties of librdkafka.
//!
//! Invariant: no password is shown, logged, or wanted among the arguments, where every user of the machine reads it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::cc::source::kafka::settings::Property;
use crate::{Error, Result};

/// The environment variable that the password is in.
pub const PASSWORD_VARIABLE: &str = "KAFKAPASSWORD";

/// No password is longer.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// What librdkafka takes secrets by.
const SECRETS: [&str; 5] = [
    "sasl.password",
    "sasl.oauthbearer.client.secret",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
];

/// How brokers are connected to.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Kafka's brokers")]
pub struct ConnectArgs {
    /// Connect with TLS; the brokers' certificates are checked against the system's authorities
    #[arg(long)]
    tls: bool,
    /// Check the brokers' certificates against these authorities (PEM); with TLS, also without --tls
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Show this certificate to the brokers (PEM); with TLS, also without --tls
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    login: LoginArgs,
    /// Property of librdkafka, as kcat takes it; repeatable, and wins over the options above
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = Property::parse)]
    properties: Vec<Property>,
}

/// Who logs in to the brokers.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Kafka's brokers")]
struct LoginArgs {
    /// Log in with SASL
    #[arg(long, value_enum, requires = "sasl_user")]
    sasl_mechanism: Option<Mechanism>,
    /// Log in as this user [--sasl-mechanism default: PLAIN]
    #[arg(long, value_name = "USER")]
    sasl_user: Option<String>,
    /// File with the password [default: the environment variable KAFKAPASSWORD has it]
    #[arg(long, value_name = "FILE", requires = "sasl_user")]
    sasl_password_file: Option<PathBuf>,
}

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mechanism {
    /// The password itself: use it with TLS alone
    #[value(name = "PLAIN")]
    Plain,
    /// A proof of the password
    #[value(name = "SCRAM-SHA-256")]
    Scram256,
    /// A proof of the password
    #[value(name = "SCRAM-SHA-512")]
    Scram512,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Scram256 => "SCRAM-SHA-256",
            Mechanism::Scram512 => "SCRAM-SHA-512",
        }
    }
}

impl ConnectArgs {
    /// True if any of these options was given.
    pub fn is_given(&self) -> bool {
        self.wants_tls() || self.login.sasl_user.is_some() || !self.properties.is_empty()
    }

    fn wants_tls(&self) -> bool {
        self.tls || self.tls_ca.is_some() || self.tls_cert.is_some()
    }

    /// All of it in librdkafka's words; `environment` gives a variable's value. Reads the password's file.
    pub fn resolve(self, environment: impl Fn(&str) -> Option<String>) -> Result<Vec<Property>> {
        let tls = self.wants_tls();
        need_tls_feature(tls, "TLS")?;
        let mut own = Vec::new();
        let protocol = match (tls, self.login.sasl_user.is_some()) {
            (false, false) => None,
            (true, false) => Some("ssl"),
            (false, true) => Some("sasl_plaintext"),
            (true, true) => Some("sasl_ssl"),
        };
        own.extend(protocol.map(|protocol| Property::new("security.protocol", protocol)));
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
            if SECRETS.contains(&&*property.key) {
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

impl LoginArgs {
    /// Nothing where no user is given.
    fn resolve(self, tls: bool, environment: impl Fn(&str) -> Option<String>) -> Result<Vec<Property>> {
        let Some(user) = self.sasl_user else { return Ok(Vec::new()) };
        let mechanism = self.sasl_mechanism.unwrap_or(Mechanism::Plain);
        need_tls_feature(mechanism != Mechanism::Plain, mechanism.name())?;
        let variable = environment(PASSWORD_VARIABLE).filter(|password| !password.is_empty());
        let password = match (&self.sasl_password_file, variable) {
            (Some(path), _) => {
                read_password(path).map_err(|reason| wrong_file("--sasl-password-file", path, reason))?
            }
            (None, Some(password)) => password,
            (None, None) => {
                return Err(Error::Usage(format!(
                    "--sasl-user needs a password: --sasl-password-file FILE, or the environment variable {PASSWORD_VARIABLE}"
                )));
            }
        };
        if mechanism == Mechanism::Plain && !tls {
            log::warn!(
                "password_in_clear mechanism=PLAIN note=\"whoever is on the way to the brokers can read it; use --tls\""
            );
        }
        Ok(vec![
            Property::new("sasl.mechanism", mechanism.name()),
            Property::new("sasl.username", &user),
            Property::new("sasl.password", &password),
        ])
    }
}

/// Refuses what only a build with OpenSSL can do.
fn need_tls_feature(needed: bool, what: &str) -> Result<()> {
    if !needed || cfg!(feature = "kafka-tls") {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "this lea was built without OpenSSL, which {what} needs: build it with `cargo build --release --features kafka-tls`"
    )))
}

/// A file that librdkafka reads: it has to be there now, and not only when a broker is connected to.
fn file_property(option: &str, key: &str, path: &Path) -> Result<Property> {
    File::open(path).map_err(|reason| wrong_file(option, path, reason))?;
    let text = path.to_str().ok_or_else(|| Error::Usage(format!("{option}: the path must be UTF-8")))?;
    Ok(Property::new(key, text))
}

fn wrong_file(option: &str, path: &Path, reason: io::Error) -> Error {
    Error::Usage(format!("{option} {}: {reason}", path.display()))
}

/// The file's content without the newline at its end.
fn read_password(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(PASSWORD_BYTES_MAX + 1).read_to_string(&mut text)?;
    let password = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    let invalid = |reason: &str| Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    match password {
        "" => invalid("there is no password in it"),
        _ if text.len() as u64 > PASSWORD_BYTES_MAX => invalid("a password has 4,096 bytes at most"),
        _ if password.contains(['\n', '\0']) => invalid("a password is one line"),
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
        connect: ConnectArgs,
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
        // What is given as a property goes last, so it wins.
        let mut expected = login("sasl.password=secret").to_vec();
        expected.push("sasl.username=other");
        check(&["-X", "sasl.username=other", "--sasl-user", "lea"], Some("secret"), &expected);
    }

    #[test]
    #[cfg(not(feature = "kafka-tls"))]
    fn without_openssl_it_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let scram = ["--sasl-user", "lea", "--sasl-mechanism", "SCRAM-SHA-512"];
        for args in [&["--tls"][..], &["--tls-ca", path], &["--tls-cert", path, "--tls-key", path], &scram] {
            check_refused(args, Some("secret"), "--features kafka-tls");
        }
    }

    #[test]
    #[cfg(feature = "kafka-tls")]
    fn files_of_tls_have_to_be_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let ca = format!("ssl.ca.location={path}");
        check(&["--tls-ca", path], None, &["security.protocol=ssl", &ca]);
        check_refused(&["--tls-ca", "/nowhere"], None, "--tls-ca /nowhere: No such file");
        check_refused(&["--tls-cert", path], None, "--tls-key");
    }
}
