//! The screen of the demo: refreshed in place on a terminal, plain lines elsewhere.

use std::io::{Stdout, Write, stdout};
use std::time::Duration;

use bytesize::ByteSize;
use crossterm::style::Stylize;
use crossterm::{cursor, execute, terminal};

use crate::cli::status::describe;
use crate::cli::use_colour;
use crate::engine::desired::{Desired, PlannedTag};
use crate::engine::status::{Phase, Status};
use crate::sink::{Sink, TextRow, open_store};

/// Users that are shown.
const USERS: usize = 3;
/// Tags of each that are shown.
const TAGS: usize = 7;

/// Looks at a few users in the store, as any other reader of it would.
pub struct Follower {
    store: Option<Box<dyn Sink>>,
    tags: Vec<PlannedTag>,
    users: Vec<String>,
    /// For each user the tags and their values.
    pub seen: Vec<(String, Vec<(String, String)>)>,
    /// What a try-out is suggested with: a tag file, the store.
    pub suggestion: String,
}

impl Follower {
    /// Of the project's store.
    pub fn new(desired: &Desired) -> Self {
        let config = &desired.project.config;
        let store = open_store(&config.store, &config.root, config.timezone).ok();
        let single_row: Vec<PlannedTag> = desired
            .tags
            .values()
            .filter(|tag| tag.table.key.len() == 1 && !tag.table.columns.is_empty())
            .cloned()
            .collect();
        let preferred = ["active_5m", "spend_30d", "vip_level", "favourite_category", "latest_device"];
        let mut tags: Vec<PlannedTag> = preferred
            .iter()
            .filter_map(|name| single_row.iter().find(|tag| tag.definition.name == *name).cloned())
            .collect();
        for tag in single_row {
            if tags.len() < TAGS && !tags.iter().any(|known| known.definition.name == tag.definition.name) {
                tags.push(tag);
            }
        }
        let file = desired
            .tags
            .get("spend_30d")
            .or_else(|| desired.tags.values().next())
            .map_or_else(String::new, |tag| config.root.join(&tag.definition.file).display().to_string());
        let open = match &config.store {
            crate::config::Store::Sqlite(path) => format!("sqlite3 {}", config.root.join(path).display()),
            crate::config::Store::Mysql(_) => "mysql (the store of profile demo-kafka)".to_string(),
        };
        let suggestion = format!("try: edit {file} and watch it reload · open the tables: {open} · Ctrl-C ends");
        Follower { store, tags, users: Vec::new(), seen: Vec::new(), suggestion }
    }

    /// Reads the users' rows; a store that is not there yet is looked at again the next time.
    pub fn look(&mut self) {
        let Some(store) = &mut self.store else { return };
        if self.users.is_empty() {
            let first = self.tags.first().and_then(|tag| store.read_table(&tag.table).ok());
            let Some(rows) = first.filter(|rows| rows.num_rows() > 0) else { return };
            let Ok(keys) = arrow::util::display::ArrayFormatter::try_new(rows.column(0), &Default::default()) else {
                return;
            };
            let step = (rows.num_rows() / USERS).max(1);
            self.users =
                (0..rows.num_rows()).step_by(step).take(USERS).map(|row| keys.value(row).to_string()).collect();
        }
        self.seen.clear();
        for user in &self.users {
            let mut values = Vec::new();
            for tag in &self.tags {
                if let Ok(rows) = store.rows_of(&tag.table, user) {
                    values.extend(rows.first().map(|row| (tag.definition.name.clone(), value(row, tag))));
                }
            }
            self.seen.push((user.clone(), values));
        }
    }
}

fn value(row: &TextRow, tag: &PlannedTag) -> String {
    let columns = tag.table.columns.iter().take(2);
    let text = |name: &str| row.iter().find(|(column, _)| column == name).and_then(|(_, value)| value.clone());
    columns.map(|column| text(&column.name).unwrap_or_else(|| "NULL".to_string())).collect::<Vec<_>>().join(" / ")
}

/// Where the demo is drawn.
pub struct Screen {
    out: Stdout,
    in_place: bool,
    colour: bool,
}

impl Screen {
    /// In place on a terminal.
    pub fn new(is_terminal: bool) -> Self {
        let mut out = stdout();
        if is_terminal {
            let _ = execute!(out, terminal::EnterAlternateScreen, terminal::DisableLineWrap, cursor::Hide);
        }
        Screen { out, in_place: is_terminal, colour: use_colour(is_terminal) }
    }

    /// Between two drawings.
    pub fn interval(&self) -> Duration {
        if self.in_place { Duration::from_millis(500) } else { Duration::from_secs(2) }
    }

    /// Draws what there is to see.
    pub fn draw(&mut self, status: &Status, follower: &Follower, address: &str) {
        let drawn = if self.in_place {
            self.draw_in_place(status, follower, address)
        } else {
            self.draw_line(status, follower)
        };
        // Whoever reads us may have gone; the demo goes on until it is told to end.
        let _ = drawn;
    }

    fn draw_in_place(&mut self, status: &Status, follower: &Follower, address: &str) -> std::io::Result<()> {
        let mut text = String::new();
        let title = "tagflow demo: a shop's events become live tags";
        text.push_str(&if self.colour { format!("{}\n\n", title.bold()) } else { format!("{title}\n\n") });
        text.push_str(&describe(status));
        text.push('\n');
        for (user, values) in &follower.seen {
            let values: Vec<String> = values.iter().map(|(tag, value)| format!("{tag} = {value}")).collect();
            let user = format!("user {user}");
            let user = if self.colour { user.cyan().to_string() } else { user };
            text.push_str(&format!("{user}: {}\n", values.join(" · ")));
        }
        text.push_str(&format!("\n{}\nmore: http://{address}/status and /metrics\n", follower.suggestion));
        let (_, height) = terminal::size()?;
        let lines = text.lines().take(usize::from(height).saturating_sub(1));
        execute!(self.out, cursor::MoveTo(0, 0))?;
        for line in lines {
            write!(self.out, "{line}")?;
            execute!(self.out, terminal::Clear(terminal::ClearType::UntilNewLine), cursor::MoveToNextLine(1))?;
        }
        execute!(self.out, terminal::Clear(terminal::ClearType::FromCursorDown))?;
        self.out.flush()
    }

    fn draw_line(&mut self, status: &Status, follower: &Follower) -> std::io::Result<()> {
        let rows: u64 = status.tags.iter().map(|tag| tag.rows).sum();
        let changes: f64 = status.tags.iter().map(|tag| tag.changes_per_second).sum();
        let phase = match (&status.fill, status.phase) {
            (Some(fill), _) => format!("filling {} tags, {} rows read", fill.tags.len(), fill.rows),
            (None, Phase::Running) => "live".to_string(),
            (None, phase) => format!("{phase:?}").to_lowercase(),
        };
        writeln!(
            self.out,
            "{phase} · {:.0} events/s · lag {} · {} tags with {rows} rows · {changes:.0} changes/s · state {}",
            status.events_per_second,
            status.lag,
            status.tags.len(),
            ByteSize(status.state_bytes),
        )?;
        for (user, values) in follower.seen.iter().take(1) {
            let values: Vec<String> = values.iter().map(|(tag, value)| format!("{tag} = {value}")).collect();
            writeln!(self.out, "  user {user}: {}", values.join(" · "))?;
        }
        self.out.flush()
    }

    /// Gives the terminal back.
    pub fn close(&mut self) {
        if std::mem::take(&mut self.in_place) {
            let _ = execute!(self.out, cursor::Show, terminal::EnableLineWrap, terminal::LeaveAlternateScreen);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}
