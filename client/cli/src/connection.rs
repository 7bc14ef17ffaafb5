//! Which server, and who is asking: flags, environment, then `nora/client.toml` in the user's configuration folder.
//!
//! What the file says about logging in belongs to the file's address: with another one given, it is not sent.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use nora_client::{Address, Client, ClientConfig, Credentials, Secret};

use super::failure::{Failure, say_warning};
use nora_auth::identity::ADMIN_USER;
use nora_config::{ClientFile, SecretSource, load_client_file};

const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Which server to speak to, and as whom.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ConnectionArgs {
    /// The server's address [default: http://127.0.0.1:4000].
    #[arg(long, env = "NORA_ADDR", global = true, value_name = "URL")]
    addr: Option<String>,
    /// Who is asking; the password is also taken from NORA_PASSWORD.
    #[arg(long, env = "NORA_USERNAME", global = true, value_name = "NAME")]
    username: Option<String>,
    /// A file that holds the password.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// Read the password from stdin.
    #[arg(long, global = true)]
    password_stdin: bool,
    /// A file that holds a token; a token is also taken from NORA_TOKEN.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A PEM file of certificates to trust beside the system's.
    #[arg(long, env = "NORA_CA_FILE", global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    #[arg(skip)]
    once: bool,
}

/// What the environment gives beside the flags that clap reads.
struct Environment {
    password: Option<String>,
    token: Option<String>,
}

impl Environment {
    fn read() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        Self { password: variable("NORA_PASSWORD"), token: variable("NORA_TOKEN") }
    }
}

impl ConnectionArgs {
    /// Asks once only, whatever the server says.
    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// For commands in which the options of the password are an account's, not the caller's.
    pub(crate) fn without_password(&self) -> Self {
        Self { password_file: None, password_stdin: false, ..self.clone() }
    }

    /// For commands in which the option of the token is what they are about, not the caller's.
    pub(crate) fn without_token(&self) -> Self {
        Self { token_file: None, ..self.clone() }
    }

    /// The token of `--token-file`. A password beside it would be a second answer to the same question.
    fn given_token(&self) -> Result<Option<Credentials>, Failure> {
        let Some(path) = &self.token_file else { return Ok(None) };
        if self.password_file.is_some() || self.password_stdin {
            return Err(Failure::Usage {
                message: "there is a token and a password".into(),
                hint: "use --token-file, or --password-file or --password-stdin",
            });
        }
        let token = SecretSource::File(path.clone()).read()?;
        Ok(Some(Credentials::Token(Secret::new(token))))
    }

    #[cfg(test)]
    pub(crate) fn addr(&self) -> Option<&str> {
        self.addr.as_deref()
    }

    /// Where the password and the token come from.
    #[cfg(test)]
    pub(crate) fn files(&self) -> (Option<&Path>, Option<&Path>) {
        (self.password_file.as_deref(), self.token_file.as_deref())
    }

    /// Makes the client; nothing is sent yet.
    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        let config = self.client_config(client_file().as_deref(), Environment::read())?;
        let plain = config.address.to_string().starts_with("http:");
        if plain && !config.address.is_loopback() && config.credentials != Credentials::Anonymous {
            say_warning(&format!("credentials go to {} over plain HTTP", config.address));
        }
        Ok(Client::new(config)?)
    }

    /// What the administrator of a cluster logs in with beside a certificate. The user's file speaks of registries alone.
    pub(crate) fn admin_credentials(&self) -> Result<Credentials, Failure> {
        self.admin_credentials_in(Environment::read())
    }

    fn admin_credentials_in(&self, environment: Environment) -> Result<Credentials, Failure> {
        if let Some(token) = self.given_token()? {
            return Ok(token);
        }
        let password = self.given_password()?;
        let named = self.username.is_some() || password.is_some();
        if let Some(token) = environment.token.filter(|_| !named) {
            return Ok(Credentials::Token(Secret::new(token)));
        }
        let Some(password) = password.or(environment.password) else {
            return Ok(Credentials::Anonymous);
        };
        let username = self.username.clone().unwrap_or_else(|| ADMIN_USER.to_owned());
        Ok(Credentials::Password { username, password: Secret::new(password) })
    }

    /// The password that a flag names.
    fn given_password(&self) -> Result<Option<String>, Failure> {
        if self.password_stdin {
            return Ok(Some(read_stdin("password")?));
        }
        let file = self.password_file.clone();
        Ok(file.map(|path| SecretSource::File(path).read()).transpose()?)
    }

    fn client_config(
        &self,
        file: Option<&Path>,
        environment: Environment,
    ) -> Result<ClientConfig, Failure> {
        let file: Option<ClientFile> = file.map(load_client_file).transpose()?;
        let parse = |text: &str| {
            Address::parse(text)
                .map_err(|error| Failure::Usage { message: error.to_string(), hint: "see --addr" })
        };
        let of_file = file.as_ref().and_then(|file| file.addr.as_deref());
        let file_address = parse(of_file.unwrap_or(Address::DEFAULT))?;
        let address = match &self.addr {
            Some(text) => parse(text)?,
            None => file_address.clone(),
        };
        let file = file.filter(|_| address == file_address);
        let mut config = ClientConfig::new(address);
        config.credentials = self.credentials(file.as_ref(), environment)?;
        config.ca_file = self.ca_file.clone().or_else(|| file.and_then(|file| file.ca_file));
        if self.once {
            config.attempts_max = 1;
        }
        Ok(config)
    }

    fn credentials(
        &self,
        file: Option<&ClientFile>,
        environment: Environment,
    ) -> Result<Credentials, Failure> {
        if let Some(token) = self.given_token()? {
            return Ok(token);
        }
        let password = self.given_password()?;
        let of_file = |source: fn(&ClientFile) -> Option<&SecretSource>| {
            file.and_then(source).map(SecretSource::read).transpose()
        };
        if self.username.is_none() && password.is_none() {
            if let Some(token) = environment.token {
                return Ok(Credentials::Token(Secret::new(token)));
            }
            if let Some(token) = of_file(|file| file.token.as_ref())? {
                return Ok(Credentials::Token(Secret::new(token)));
            }
        }
        let username =
            self.username.clone().or_else(|| file.and_then(|file| file.username.clone()));
        let password = match password.or(environment.password) {
            Some(password) => Some(password),
            None => of_file(|file| file.password.as_ref())?,
        };
        match (username, password) {
            (Some(username), Some(password)) => {
                Ok(Credentials::Password { username, password: Secret::new(password) })
            }
            (None, None) => Ok(Credentials::Anonymous),
            (Some(username), None) => Err(Failure::Usage {
                message: format!("there is no password for {username}"),
                hint: "use --password-file, --password-stdin or NORA_PASSWORD",
            }),
            (None, Some(_)) => Err(Failure::Usage {
                message: "there is a password, but no name it belongs to".into(),
                hint: "use --username or NORA_USERNAME",
            }),
        }
    }
}

/// Reads a secret from stdin; `what` is what errors call it.
pub(crate) fn read_stdin(what: &str) -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(SECRET_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|source| Failure::Io { step: format!("read the {what} from stdin"), source })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The user's `nora/client.toml`, if there is one.
fn client_file() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let config = folder("XDG_CONFIG_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".config")))
        .or_else(|| folder("APPDATA"))?;
    Some(config.join("nora").join("client.toml")).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Environment = Environment { password: None, token: None };

    fn args() -> ConnectionArgs {
        ConnectionArgs {
            addr: None,
            username: None,
            password_file: None,
            password_stdin: false,
            token_file: None,
            ca_file: None,
            once: false,
        }
    }

    fn password(username: &str, password: &str) -> Credentials {
        Credentials::Password { username: username.into(), password: Secret::new(password) }
    }

    #[test]
    fn nothing_given_is_anonymous_at_the_default_address() {
        let config = args().client_config(None, NOTHING).unwrap();
        assert_eq!(config.address.to_string(), Address::DEFAULT);
        assert_eq!(config.credentials, Credentials::Anonymous);
    }

    #[test]
    fn the_files_login_is_for_the_files_server_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.toml");
        std::fs::write(folder.path().join("pw"), "hunter2\n").unwrap();
        let text =
            "addr = \"https://a.example.com\"\nusername = \"me\"\npassword = { file = \"pw\" }";
        std::fs::write(&path, text).unwrap();

        let config = args().client_config(Some(&path), NOTHING).unwrap();
        assert_eq!(config.address.to_string(), "https://a.example.com");
        assert_eq!(config.credentials, password("me", "hunter2"));

        let other = ConnectionArgs { addr: Some("https://b.example.com".into()), ..args() };
        let config = other.client_config(Some(&path), NOTHING).unwrap();
        assert_eq!(config.credentials, Credentials::Anonymous);

        std::fs::write(&path, "adr = \"x\"").unwrap();
        let error = args().client_config(Some(&path), NOTHING).unwrap_err().to_string();
        assert!(error.contains("did you mean `addr`?"), "{error}");
    }

    #[test]
    fn the_administrator_has_a_name_and_needs_none() {
        let environment = |password: bool, token: bool| Environment {
            password: password.then(|| "pw".into()),
            token: token.then(|| "token".into()),
        };
        let named = ConnectionArgs { username: Some("me".into()), ..args() };
        let admin = |args: ConnectionArgs, environment| args.admin_credentials_in(environment);
        assert_eq!(admin(args(), NOTHING).unwrap(), Credentials::Anonymous);
        assert_eq!(admin(args(), environment(true, false)).unwrap(), password("admin", "pw"));
        let token = Credentials::Token(Secret::new("token"));
        assert_eq!(admin(args(), environment(true, true)).unwrap(), token);
        assert_eq!(admin(named, environment(true, true)).unwrap(), password("me", "pw"));
    }

    #[test]
    fn a_token_and_a_password_are_one_too_many() {
        let both = ConnectionArgs {
            token_file: Some("token".into()),
            password_file: Some("pw".into()),
            ..args()
        };
        for refused in [
            both.admin_credentials_in(NOTHING).map(drop),
            both.client_config(None, NOTHING).map(drop),
        ] {
            assert!(matches!(refused, Err(Failure::Usage { .. })), "{refused:?}");
        }
        // What is not the caller's is not taken for a login, and not read.
        let nobody = both.without_password().without_token();
        assert_eq!(nobody.admin_credentials_in(NOTHING).unwrap(), Credentials::Anonymous);
    }

    #[test]
    fn a_login_needs_both_halves_and_flags_go_first() {
        let named = ConnectionArgs { username: Some("me".into()), ..args() };
        let given = |password: &str| Environment {
            password: Some(password.into()),
            token: Some("token".into()),
        };
        assert!(matches!(named.client_config(None, NOTHING), Err(Failure::Usage { .. })));
        let config = named.client_config(None, given("pw")).unwrap();
        assert_eq!(config.credentials, password("me", "pw"));
        let config = args().client_config(None, given("pw")).unwrap();
        assert_eq!(config.credentials, Credentials::Token(Secret::new("token")));
    }
}
