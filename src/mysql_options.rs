//! How a MySQL server is reached: the driver's options out of an address and its TLS files.
//!
//! Enters: what `tagflow.toml` says. Leaves: options, or what is wrong with a file. The files are read anew for every
//! connection, so that renewed certificates count without a restart.

use std::path::Path;

use mysql_async::{ClientIdentity, Opts, OptsBuilder, SslOpts};
use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::stack::Stack;
use openssl::x509::X509;

use crate::config::{MysqlAddress, Tls};
use crate::regular_file::{MOST_OF_TEXT, read_regular};

/// Protects an archive that never leaves this process.
const ARCHIVE_PASSWORD: &str = "in memory";

/// Options for a connection over TCP that notices when the other side is gone.
pub(crate) fn mysql_options(address: &MysqlAddress) -> Result<OptsBuilder, String> {
    let opts = Opts::from_url(address.url.expose()).map_err(|error| error.to_string())?;
    // The server's idea of its socket is often wrong in containers, and another account may be meant there.
    let mut opts =
        OptsBuilder::from_opts(opts).prefer_socket(false).tcp_keepalive(Some(std::time::Duration::from_secs(10)));
    if address.tls != Tls::default() {
        opts = opts.ssl_opts(tls_options(&address.tls)?);
    }
    Ok(opts)
}

fn tls_options(tls: &Tls) -> Result<SslOpts, String> {
    let mut options = SslOpts::default();
    if let Some(ca) = &tls.ca {
        let pem = read(ca)?;
        if X509::stack_from_pem(&pem).map_or(true, |certificates| certificates.is_empty()) {
            return Err(format!("{}: there is no certificate in PEM in it", ca.display()));
        }
        options = options.with_root_certs(vec![pem.into()]).with_disable_built_in_roots(true);
    }
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        let identity = ClientIdentity::new(archive(cert, key)?.into()).with_password(ARCHIVE_PASSWORD);
        options = options.with_client_identity(Some(identity));
    }
    Ok(options)
}

/// A client certificate with its chain and key as the one file that the driver takes.
fn archive(cert: &Path, key: &Path) -> Result<Vec<u8>, String> {
    let no_certificate = || format!("{}: there is no certificate in PEM in it", cert.display());
    let mut certificates = X509::stack_from_pem(&read(cert)?).map_err(|_| no_certificate())?.into_iter();
    let own = certificates.next().ok_or_else(no_certificate)?;
    // A passphrase that is given is one that nobody is asked for.
    let private = PKey::private_key_from_pem_passphrase(&read(key)?, b"")
        .map_err(|_| format!("{}: there is no private key in PEM without a passphrase in it", key.display()))?;
    if !own.public_key().is_ok_and(|public| public.public_eq(&private)) {
        return Err(format!("{}: it is not the key of {}", key.display(), cert.display()));
    }
    let packed = (|| {
        let mut chain = Stack::new()?;
        certificates.try_for_each(|certificate| chain.push(certificate))?;
        let mut builder = Pkcs12::builder();
        builder.cert(&own).pkey(&private).ca(chain);
        builder.build2(ARCHIVE_PASSWORD)?.to_der()
    })();
    packed.map_err(|error: openssl::error::ErrorStack| format!("{}: {error}", cert.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_regular(path, MOST_OF_TEXT).map_err(|error| format!("{}: {error}", path.display()))
}
