//! One dead letter, and which ones are meant.

use serde::{Deserialize, Serialize};

/// Why a record was put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It does not fit the stream's schema.
    #[default]
    Decode,
    /// It came too late for the windows of some tag.
    Late,
    /// An expression of one tag fails on it, and the tag skips such rows.
    Skip,
}

impl Kind {
    /// Its name in letters.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Decode => "decode",
            Kind::Late => "late",
            Kind::Skip => "skip",
        }
    }
}

/// One line of a dead-letter file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Why it was put aside.
    #[serde(default)]
    pub kind: Kind,
    /// The stream that the record is of.
    pub stream: String,
    /// The tag that skips it, where it is a single one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The tags that it was too late for when it was put aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late_for: Vec<String>,
    /// The Kafka topic, or the file.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Broker time in milliseconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// What is wrong with it.
    pub error: String,
    /// The record's key, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The record's key in base64, where it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The record, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// The record in base64, where it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_base64: Option<String>,
    /// How many bytes the record has, where it or its key was too long to be kept as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_from: Option<usize>,
    /// When it was put here: milliseconds since the Unix epoch.
    pub at: i64,
}

/// Which letters are meant; what is not said holds of all.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Of this stream.
    pub stream: Option<String>,
    /// Of this topic or file.
    pub topic: Option<String>,
    /// Of this partition.
    pub partition: Option<i32>,
    /// At this offset.
    pub offset: Option<i64>,
    /// Put aside for this reason.
    pub kind: Option<Kind>,
    /// Skipped by this tag, or too late for it.
    pub tag: Option<String>,
    /// Put here at this time or later, milliseconds since the Unix epoch.
    pub since: Option<i64>,
    /// Put here before this time.
    pub until: Option<i64>,
    /// With this text in the error, whatever its case.
    pub error: Option<String>,
}

impl Selection {
    /// True when a letter is meant.
    pub fn holds(&self, letter: &DeadLetter) -> bool {
        fn is<T: PartialEq>(wanted: &Option<T>, found: &T) -> bool {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        }
        is(&self.stream, &letter.stream)
            && is(&self.topic, &letter.topic)
            && is(&self.partition, &letter.partition)
            && is(&self.offset, &letter.offset)
            && is(&self.kind, &letter.kind)
            && self.tag.as_ref().is_none_or(|tag| letter.tag.iter().chain(&letter.late_for).any(|of| of == tag))
            && self.since.is_none_or(|since| letter.at >= since)
            && self.until.is_none_or(|until| letter.at < until)
            && self.error.as_ref().is_none_or(|text| letter.error.to_lowercase().contains(&text.to_lowercase()))
    }

    /// True when every letter is meant.
    pub fn is_everything(&self) -> bool {
        let Selection { stream, topic, partition, offset, kind, tag, since, until, error } = self;
        let texts = [stream, topic, tag, error].iter().all(|text| text.is_none());
        texts && partition.is_none() && kind.is_none() && [offset, since, until].iter().all(|number| number.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_holds_of_letters_that_meet_all_of_it() {
        let letter: DeadLetter = serde_json::from_str(
            r#"{"kind":"skip","stream":"orders","tag":"spend","topic":"shop.orders","partition":2,"offset":17,
                "timestamp":5,"error":"Divide by zero","at":1000}"#,
        )
        .unwrap();
        let all = Selection {
            stream: Some("orders".into()),
            topic: Some("shop.orders".into()),
            partition: Some(2),
            offset: Some(17),
            kind: Some(Kind::Skip),
            tag: Some("spend".into()),
            since: Some(1000),
            until: Some(1001),
            error: Some("divide BY".into()),
        };
        assert!(all.holds(&letter) && !all.is_everything());
        let others = [
            Selection { stream: Some("views".into()), ..all.clone() },
            Selection { topic: Some("orders".into()), ..all.clone() },
            Selection { partition: Some(1), ..all.clone() },
            Selection { offset: Some(18), ..all.clone() },
            Selection { kind: Some(Kind::Decode), ..all.clone() },
            Selection { tag: Some("count".into()), ..all.clone() },
            Selection { since: Some(1001), ..all.clone() },
            Selection { until: Some(1000), ..all.clone() },
            Selection { error: Some("overflow".into()), ..all.clone() },
        ];
        assert!(others.iter().all(|other| !other.holds(&letter)));
        let late_for = ["count", "spend"].map(str::to_string).into();
        let late = DeadLetter { kind: Kind::Late, tag: None, late_for, ..letter.clone() };
        let of = |tag: &str| Selection { tag: Some(tag.into()), ..Selection::default() };
        assert!(of("count").holds(&late) && of("spend").holds(&late) && !of("views").holds(&late));
        assert!(Selection::default().holds(&letter) && Selection::default().is_everything());
    }
}
