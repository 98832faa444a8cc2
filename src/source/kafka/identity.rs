//! Is it still the same topic? A topic that was deleted and made again has other records at the offsets of the old one.
//!
//! Clusters give every topic an id of its own. The one that a stream was read from is kept in the state directory, beside
//! the checkpoints whose offsets mean that topic. Clusters that know no ids are not asked again and again.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::consumer::Consumer as _;
use serde::{Deserialize, Serialize};

use super::Consumer;
use crate::whole_file;

/// The folder of known topics below the state directory, one file a stream.
const FOLDER: &str = "topics";

/// A topic as a stream knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTopic {
    topic: String,
    id: String,
}

/// The topics that are known in a state directory, by stream.
pub fn known_topics(state_dir: &Path) -> io::Result<BTreeMap<String, KnownTopic>> {
    let files = match fs::read_dir(state_dir.join(FOLDER)) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut known = BTreeMap::new();
    for file in files {
        let path = file?.path();
        if let Some(stream) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")) {
            known.insert(stream.to_string(), serde_json::from_slice(&fs::read(&path)?)?);
        }
    }
    Ok(known)
}

/// The id of the topic of this name that a stream is read from, where the cluster has said it.
pub(crate) fn known_topic_id(state_dir: &Path, stream: &str, topic: &str) -> io::Result<Option<String>> {
    let known = Identity::of(state_dir, stream).known()?;
    Ok(known.filter(|known| known.topic == topic).map(|known| known.id))
}

/// Takes over the topics that offsets mean which were read elsewhere.
pub fn remember_topics(state_dir: &Path, topics: &BTreeMap<String, KnownTopic>) -> io::Result<()> {
    topics.iter().try_for_each(|(stream, known)| Identity::of(state_dir, stream).remember(known))
}

/// The topic of one stream, as it was first seen.
pub(super) struct Identity {
    folder: PathBuf,
    stream: String,
}

impl Identity {
    pub(super) fn of(state_dir: &Path, stream: &str) -> Self {
        Identity { folder: state_dir.join(FOLDER), stream: stream.to_string() }
    }

    /// What is wrong with a topic that has this id now, if it is not the one that was seen first, which is kept.
    pub(super) fn differs(&self, topic: &str, id: &str) -> io::Result<Option<String>> {
        match self.known()?.filter(|known| known.topic == topic) {
            Some(known) if known.id == id => Ok(None),
            Some(known) => Ok(Some(format!(
                "topic {topic:?} was deleted and made again: its id was {} and is {id}; it is read no further, and what was read \
                 in the seconds before may be of the new topic. To fill the tags from it, stop the daemon and remove {} and the \
                 checkpoints beside it",
                known.id,
                self.folder.display()
            ))),
            None => {
                self.remember(&KnownTopic { topic: topic.to_string(), id: id.to_string() })?;
                Ok(None)
            }
        }
    }

    fn known(&self) -> io::Result<Option<KnownTopic>> {
        match fs::read(self.path()) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.stream))
    }

    fn remember(&self, known: &KnownTopic) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        whole_file::write(&self.path(), &serde_json::to_vec(known)?)
    }
}

/// The id of a topic; `None` where the cluster does not say.
pub(super) fn topic_id(consumer: &Consumer, topic: &str, wait: Duration) -> Option<String> {
    let client = consumer.client().native_ptr();
    let topic = CString::new(topic).ok()?;
    let mut names = [topic.as_ptr()];
    let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives the call; what is made here is owned here and destroyed below, the event last, since
    // the answer and the text of the id are parts of it. The id is copied before.
    unsafe {
        let queue = Owned::new(native::rd_kafka_queue_new(client), native::rd_kafka_queue_destroy)?;
        let topics = native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let topics = Owned::new(topics, native::rd_kafka_TopicCollection_destroy)?;
        let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = native::rd_kafka_AdminOptions_new(client, kind);
        let options = Owned::new(options, native::rd_kafka_AdminOptions_destroy)?;
        let mut reason = [0; 256];
        native::rd_kafka_AdminOptions_set_request_timeout(options.get(), millis, reason.as_mut_ptr(), reason.len());
        native::rd_kafka_DescribeTopics(client, topics.get(), options.get(), queue.get());
        let event = native::rd_kafka_queue_poll(queue.get(), millis);
        let event = Owned::new(event, native::rd_kafka_event_destroy)?;
        let result = NonNull::new(native::rd_kafka_event_DescribeTopics_result(event.get()).cast_mut())?;
        let mut count = 0;
        let found = native::rd_kafka_DescribeTopics_result_topics(result.as_ptr(), &mut count);
        if found.is_null() || count == 0 {
            return None;
        }
        let description = *found;
        if native::rd_kafka_error_code(native::rd_kafka_TopicDescription_error(description))
            != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return None;
        }
        let id = NonNull::new(native::rd_kafka_TopicDescription_topic_id(description).cast_mut())?;
        let text = NonNull::new(native::rd_kafka_Uuid_base64str(id.as_ptr()).cast_mut())?;
        let text = CStr::from_ptr(text.as_ptr()).to_str().ok()?.to_string();
        // Of clusters before ids, all of it is zero.
        (!text.is_empty() && !text.bytes().all(|byte| byte == b'A')).then_some(text)
    }
}

/// Something of librdkafka that is ours to destroy.
struct Owned<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        Some(Owned { pointer: NonNull::new(pointer)?, destroy })
    }

    fn get(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it was made for us, and nobody else destroys it.
        unsafe { (self.destroy)(self.pointer.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_with_another_id_is_another_and_a_stream_that_moves_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let orders = Identity::of(folder.path(), "orders");
        for _ in 0..2 {
            assert_eq!(orders.differs("shop.orders", "one").unwrap(), None);
        }
        let differs = orders.differs("shop.orders", "two").unwrap().unwrap();
        assert!(
            differs.starts_with(
                "topic \"shop.orders\" was deleted and made again: its id was one and is two; it is read no further, "
            ),
            "{differs}"
        );
        assert_eq!(Identity::of(folder.path(), "views").differs("shop.orders", "two").unwrap(), None);
        assert_eq!(orders.differs("shop.new_orders", "three").unwrap(), None);

        // Another machine goes on with the offsets of this one: to it they mean the same topics.
        let elsewhere = tempfile::tempdir().unwrap();
        Identity::of(elsewhere.path(), "orders").differs("shop.new_orders", "older").unwrap();
        remember_topics(elsewhere.path(), &known_topics(folder.path()).unwrap()).unwrap();
        assert_eq!(known_topics(elsewhere.path()).unwrap(), known_topics(folder.path()).unwrap());
        assert!(Identity::of(elsewhere.path(), "orders").differs("shop.new_orders", "four").unwrap().is_some());
        fs::write(folder.path().join("topics/orders.json"), "{").unwrap();
        assert!(orders.differs("shop.orders", "one").is_err());
    }
}
