//! Checkpoints in object stores do what those in a folder do.

use std::time::Duration;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::config::S3Place;
use crate::engine::checkpoint::objects::{Objects, Refusal};

fn running() -> Arc<Stop> {
    Arc::new(Stop::new(Arc::default()))
}

fn over(store: Arc<dyn ObjectStore>) -> Arc<dyn Place> {
    Arc::new(Objects::of(store, "shops/one", "s3://tags".to_string(), running()).unwrap())
}

/// Places that must not differ.
fn places(folder: &Path) -> Vec<Arc<dyn Place>> {
    let local = folder.join("objects");
    std::fs::create_dir(&local).unwrap();
    vec![
        Arc::new(Folder(folder.join("folder"))),
        over(Arc::new(InMemory::new())),
        over(Arc::new(LocalFileSystem::new_with_prefix(local).unwrap())),
    ]
}

#[test]
fn files_are_whole_or_missing_or_too_long_in_every_place() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(folder.path()) {
        let reason = |outcome: Result<Vec<u8>, CheckpointError>| match outcome {
            Err(CheckpointError::Damaged { reason, .. }) => reason,
            other => panic!("{place:?} gives {other:?}"),
        };
        assert_eq!(place.list(SEGMENTS).unwrap(), Vec::<String>::new());
        for (name, bytes) in
            [("segments/a", "one"), ("segments/a", "two"), ("segments/b", ""), ("manifests/c", "three")]
        {
            place.put(name, &Bytes::from_static(bytes.as_bytes())).unwrap();
        }
        assert_eq!(place.get("segments/a", 3).unwrap(), b"two");
        assert_eq!(reason(place.get("segments/a", 2)), "it is longer than it should be");
        assert_eq!(reason(place.get("segments/none", 2)), "it is missing");
        let names = ["segments/b", "segments/none", "segments/a"].map(str::to_string);
        let all =
            place.get_all(&names, 3).unwrap().into_iter().map(|outcome| outcome.map_err(|error| reason(Err(error))));
        assert_eq!(all.collect::<Vec<_>>(), [Ok(vec![]), Err("it is missing".to_string()), Ok(b"two".to_vec())]);
        let sorted = |folder: &str| {
            let mut names = place.list(folder).unwrap();
            names.sort_unstable();
            names
        };
        assert_eq!(sorted(SEGMENTS), ["a", "b"]);
        assert_eq!(sorted(""), [MANIFESTS, SEGMENTS]);
        place.remove(&names).unwrap();
        assert_eq!(sorted(SEGMENTS), Vec::<String>::new());
        assert_eq!(sorted(MANIFESTS), ["c"]);
    }
}

#[test]
fn checkpoints_are_kept_collected_and_gone_back_to_in_every_place() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(folder.path()) {
        let checkpoints = Checkpoints::at(place);
        let mut first = writer(&checkpoints);
        for epoch in [3, 20, 100] {
            save(&mut first, epoch, vec![whole("a", &[(1, epoch as i64)])]);
        }
        first.write(taken(120, vec![changes("a", &[(2, 2)], &[], None)]), 2).unwrap();
        assert_eq!(checkpoints.place.list(SEGMENTS).unwrap().len(), 3);
        drop(writer(&checkpoints));
        for part in [MANIFESTS, SEGMENTS] {
            assert_eq!(checkpoints.place.list(part).unwrap().len(), 2, "{part}");
        }
        assert_eq!(latest(&checkpoints).0.unwrap().0, 100);
        checkpoints.go_back_to(20).unwrap();
        let (epoch, tables) = latest(&checkpoints).0.unwrap();
        assert_eq!((epoch, tables["a"][&1]), (20, 20));
    }
}

#[test]
fn checkpoints_of_older_and_newer_formats_are_refused_by_name_in_every_place_and_their_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(folder.path()) {
        let checkpoints = Checkpoints::at(place);
        save(&mut writer(&checkpoints), 5, vec![whole("a", &[(1, 1)])]);
        let manifest = checkpoints.place.get(&manifest_name(5), LONGEST).unwrap();
        let newer = String::from_utf8(manifest).unwrap().replacen("checkpoint 3 ", "checkpoint 4 ", 1);
        checkpoints.place.put(&manifest_name(5), &newer.into()).unwrap();
        let old = Bytes::from_static(br#"{"version": 2, "epoch": 4}"#);
        checkpoints.place.put("00000000000000000004/manifest.json", &old).unwrap();
        drop(writer(&checkpoints));
        let (found, skipped) = latest(&checkpoints);
        assert_eq!(found, None);
        assert!(skipped[0].ends_with("the checkpoint has format 4, this tagflow reads format 3"), "{skipped:?}");
        assert!(
            skipped[1].ends_with("manifest.json: the checkpoint has format 2, this tagflow reads format 3"),
            "{skipped:?}"
        );
        assert_eq!(checkpoints.place.list(SEGMENTS).unwrap().len(), 1);
        // One of this version stands beside them.
        save(&mut writer(&checkpoints), 6, vec![whole("a", &[(1, 6)])]);
        assert_eq!(latest(&checkpoints).0.unwrap().0, 6);
    }
}

#[test]
fn two_prefixes_of_one_store_do_not_see_each_other() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let [one, other] = ["shops/one", "shops/one2"].map(|prefix| {
        let place = Objects::of(Arc::clone(&store), prefix, "s3://tags".to_string(), running()).unwrap();
        Checkpoints::at(Arc::new(place))
    });
    save(&mut writer(&one), 1, vec![whole("a", &[(1, 1)])]);
    save(&mut writer(&other), 2, vec![whole("a", &[(1, 2)])]);
    drop((writer(&one), writer(&other)));
    assert_eq!((latest(&one).0.unwrap().0, latest(&other).0.unwrap().0), (1, 2));
}

#[test]
fn checkpoints_of_another_store_are_left_alone_where_others_may_keep_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let shared = Checkpoints::at(over(Arc::new(InMemory::new())));
    for (checkpoints, is_own) in [(shared, false), (Checkpoints::new(folder.path()), true)] {
        let (one, other) = (checkpoints.clone().of_store("one"), checkpoints.clone().of_store("other"));
        save(&mut writer(&one), 7, vec![whole("a", &[(1, 1)])]);
        let (found, skipped) = latest(&other);
        assert_eq!(found, None);
        assert!(skipped[0].contains("belongs to the tags of another database"), "{skipped:?}");
        // Who asks for no store in particular sees it.
        assert_eq!(latest(&checkpoints).0.unwrap().0, 7);
        match Writer::open(other.clone(), KEEPING, BTreeMap::new()) {
            Err(error) => {
                assert!(!is_own && matches!(error, CheckpointError::Foreign { .. }), "{error}");
                assert_eq!(latest(&one).0.unwrap().0, 7);
            }
            Ok(mut writer) => {
                assert!(is_own);
                save(&mut writer, 3, vec![whole("a", &[(1, 3)])]);
                assert_eq!((latest(&other).0.unwrap().0, latest(&one).0), (3, None));
            }
        }
    }
}

#[test]
fn an_object_that_stands_for_a_folder_is_none_of_ours() {
    let store = Arc::new(InMemory::new());
    let folder = object_store::path::Path::from("shops/one/segments");
    futures::executor::block_on(store.put(&folder, "".into())).unwrap();
    assert_eq!(over(store).list(SEGMENTS).unwrap(), Vec::<String>::new());
}

fn refused(kind: fn(String, Box<dyn std::error::Error + Send + Sync>) -> object_store::Error, says: &str) -> Refusal {
    kind("shops/one/manifests".to_string(), says.to_string().into()).into()
}

#[test]
fn what_a_store_answers_is_told_in_few_words_and_without_the_request() {
    let generic = |_: String, source| object_store::Error::Generic { store: "S3", source };
    let denied = |path, source| object_store::Error::PermissionDenied { path, source };
    let missing = |path, source| object_store::Error::NotFound { path, source };
    let page = "<Error><Code>SignatureDoesNotMatch</Code><Message>it does\nnot match</Message>\
                <CanonicalRequest>x-amz-security-token:hidden</CanonicalRequest></Error>";
    let refusal = refused(denied, page);
    assert_eq!(
        refusal.words,
        "SignatureDoesNotMatch: it does: look at the credentials, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and at what \
         they may do"
    );
    assert_eq!(refusal.kind, ErrorKind::PermissionDenied);
    let bucket = refused(missing, "<Error><Code>NoSuchBucket</Code></Error>");
    assert_eq!((bucket.kind, bucket.is_missing, bucket.words.as_str()), (ErrorKind::NotFound, false, "NoSuchBucket"));
    assert!(refused(missing, "<Error><Code>NoSuchKey</Code></Error>").is_missing);
    let busy = refused(generic, "<Error><Code>SlowDown</Code><Message>later</Message></Error>");
    assert_eq!((busy.kind, busy.words.as_str()), (ErrorKind::NotConnected, "SlowDown: later"));
    let page = "Server returned non-2xx status code: 502 Bad Gateway: <html>hidden</html>";
    assert_eq!(refused(generic, page).words, "502 Bad Gateway");
    let region = refused(generic, "<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>");
    assert_eq!(region.kind, ErrorKind::InvalidInput);
    let not_removed = refused(generic, "DeleteObjects request failed for key a: Access Denied (code: AccessDenied)");
    assert!(not_removed.kind == ErrorKind::PermissionDenied && not_removed.words.starts_with("AccessDenied: look at"));
}

#[test]
fn a_store_that_is_away_is_a_passing_fault_that_names_the_object() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = S3Place {
        bucket: "tags".to_string(),
        prefix: "one".to_string(),
        endpoint: Some(format!("http://{address}")),
        allow_http: Some(true),
        access_key_id: Some(crate::config::Secret::new("me")),
        secret_access_key: Some(crate::config::Secret::new("word")),
        timeout: Duration::from_secs(2),
        ..S3Place::default()
    };
    let error = Objects::s3(&place, running()).unwrap().list(MANIFESTS).unwrap_err();
    assert!(error.is_passing(), "{error:?}");
    let told = error.to_string();
    assert!(told.starts_with("s3://tags/one/manifests: ") && told.contains("refused"), "{told}");

    // Once the daemon's time is over nothing is waited for.
    let stop = running();
    stop.begin();
    let begun = std::time::Instant::now();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Some(format!("http://{}", silent.local_addr().unwrap()));
    let place = S3Place { endpoint, timeout: Duration::from_secs(60), ..place };
    let error = Objects::s3(&place, stop).unwrap().list(MANIFESTS).unwrap_err();
    assert!(error.to_string().ends_with("it does not answer, and the daemon stops"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
