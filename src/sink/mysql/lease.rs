//! The lease: one row that says who writes this database and until when, by the database's own clock.
//!
//! Enters: a claim. Leaves: a new generation, or who keeps it from us. The lease decides who may begin to write; that
//! nobody else goes on writing is the generation's work, which every transaction compares.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::encode::quote_text;
use super::server::{Server, Session};
use super::{Store, number};
use crate::sink::SinkError;
use crate::sink::lease::{Claim, Holder, Opened, Owner, random_name};

/// A lease that this process holds.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    owner: Owner,
    pub length: Duration,
}

impl Lease {
    pub fn of(claim: &Claim) -> Lease {
        Lease { owner: claim.owner.clone(), length: claim.length }
    }

    fn expiry(&self) -> String {
        format!("UTC_TIMESTAMP(6) + INTERVAL {} MICROSECOND", self.length.as_micros())
    }

    fn taken(&self, generation: u64) -> String {
        format!(
            "REPLACE INTO `_tagflow_lease` (`id`, `owner`, `host`, `pid`, `generation`, `expires_at`) \
             VALUES (1, {}, {}, {}, {generation}, {})",
            quote_text(&self.owner.id),
            quote_text(&self.owner.host),
            self.owner.pid,
            self.expiry()
        )
    }

    /// Lets the server end a connection that stands still for longer than the lease: the transaction of a machine that is
    /// lost must not lock its successor out.
    pub fn session_setup(&self) -> String {
        let seconds = self.length.as_secs_f64().ceil().max(2.0);
        format!("SET SESSION wait_timeout = {seconds}, net_read_timeout = {seconds}, net_write_timeout = {seconds}")
    }
}

/// An error while the lease of another writer keeps this claim out. Locks nothing, and needs none of the tables.
pub(super) async fn look(session: &mut Session, claim: &Claim) -> Result<(), SinkError> {
    let there = "SELECT COUNT(*) FROM information_schema.TABLES \
                 WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '_tagflow_lease'";
    let there = session.row(there).await?;
    if number(&there, 0, session.server())? > 0 {
        check(session, claim, "").await?;
    }
    Ok(())
}

/// The last writer, unless its lease keeps this claim out.
async fn check(session: &mut Session, claim: &Claim, lock: &str) -> Result<Option<Owner>, SinkError> {
    let sql = format!(
        "SELECT `owner`, `host`, `pid`, `expires_at`, TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), `expires_at`) \
         FROM `_tagflow_lease` WHERE `id` = 1{lock}"
    );
    let row = session.row(&sql).await?;
    if row.is_empty() {
        return Ok(None);
    }
    let text = |index: usize| row.get(index).cloned().flatten();
    let owner = Owner {
        id: text(0).unwrap_or_default(),
        host: text(1).unwrap_or_default(),
        pid: text(2).and_then(|pid| pid.parse().ok()).unwrap_or_default(),
    };
    let left = text(4).and_then(|left| left.parse::<i64>().ok()).unwrap_or_default();
    let mut left = Duration::from_micros(u64::try_from(left).unwrap_or_default());
    if left.is_zero() {
        // Nobody could renew a lease while the server was down: its holder has the first go.
        let uptime = session.row("SHOW GLOBAL STATUS LIKE 'Uptime'").await?;
        left = claim.length.saturating_sub(Duration::from_secs(number(&uptime, 1, session.server())?));
    }
    if left.is_zero() || claim.may_end(&owner) {
        return Ok(Some(owner));
    }
    let holder = Holder { owner, expires_at: text(3), left: Some(left) };
    Err(SinkError::Held { store: session.server().name.clone(), holder })
}

impl Store {
    /// Takes the lease, and the next generation with it, in one transaction.
    pub(super) async fn take_lease(&mut self, claim: &Claim) -> Result<Opened, SinkError> {
        let lease = Lease::of(claim);
        let session = self.session().await?;
        let server = session.server().clone();
        session.execute("START TRANSACTION", None).await?;
        let before = check(session, claim, " FOR UPDATE").await?;
        let claim = format!(
            "UPDATE `_tagflow_meta` SET `generation` = `generation` + 1, `store_id` = COALESCE(`store_id`, {}) WHERE `id` = 1",
            quote_text(&random_name())
        );
        session.execute(claim, None).await?;
        let row = session.row("SELECT `generation`, `store_id` FROM `_tagflow_meta` WHERE `id` = 1").await?;
        let generation = number(&row, 0, &server)?;
        let store = row.get(1).cloned().flatten().unwrap_or_default();
        session.execute(lease.taken(generation), None).await?;
        session.execute("COMMIT", None).await?;
        session.execute(lease.session_setup(), None).await?;
        self.generation = Some(generation);
        self.lease = Some(lease);
        Ok(Opened { generation, store, before })
    }

    pub(super) async fn renew_lease(&mut self) -> Result<(), SinkError> {
        let (Some(lease), Some(generation)) = (self.lease.clone(), self.generation) else { return Ok(()) };
        let session = self.session().await?;
        if renew(session, &lease).await? {
            return Ok(());
        }
        // No newer writer, so somebody has edited the row.
        self.transaction(async |session| session.execute(lease.taken(generation), None).await).await
    }

    /// Lets the next daemon begin at once.
    pub(super) async fn give_lease_back(&mut self) -> Result<(), SinkError> {
        let Some(lease) = self.lease.take() else { return Ok(()) };
        let end = format!(
            "UPDATE `_tagflow_lease` SET `expires_at` = UTC_TIMESTAMP(6) WHERE `id` = 1 AND `owner` = {}",
            quote_text(&lease.owner.id)
        );
        self.session().await?.execute(end, None).await
    }
}

/// True when the lease was ours and now lasts longer.
async fn renew(session: &mut Session, lease: &Lease) -> Result<bool, SinkError> {
    let renew = format!(
        "UPDATE `_tagflow_lease` SET `expires_at` = {} WHERE `id` = 1 AND `owner` = {}",
        lease.expiry(),
        quote_text(&lease.owner.id)
    );
    session.execute(renew, None).await?;
    Ok(session.changed_rows() > 0)
}

/// Renews a lease while its own connection is busy with something long.
pub(super) struct Keeper {
    server: Arc<Server>,
    lease: Lease,
    session: Option<Session>,
}

impl Keeper {
    pub fn new(server: Arc<Server>, lease: Lease) -> Keeper {
        Keeper { server, lease, session: None }
    }

    /// Renews until it is dropped. What goes wrong here, the call that it runs beside finds out too.
    pub async fn keep(&mut self) -> Infallible {
        loop {
            tokio::time::sleep(self.lease.length / 3).await;
            if self.session.is_none() {
                self.session = self.server.connect().await.ok();
            }
            if let Some(session) = &mut self.session
                && renew(session, &self.lease).await.is_err()
            {
                self.session = None;
            }
        }
    }

    pub async fn close(&mut self) {
        if let Some(session) = self.session.take() {
            session.close().await;
        }
    }
}
