//! The jobs that `tagflow init` writes for GitHub Actions and GitLab: they are YAML of the right shape, and each step of them runs
//! in a real project. What only the hosting service has is played by a program that notes what it is asked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use saphyr::{LoadableYamlNode, Yaml};

/// A project of `tagflow init` in a repository, on a branch that has changed a tag.
struct Branch {
    folder: tempfile::TempDir,
    tools: tempfile::TempDir,
}

impl Branch {
    fn new() -> Self {
        let branch = Branch { folder: tempfile::tempdir().unwrap(), tools: tempfile::tempdir().unwrap() };
        let tag = "tags/consumption/spend_30d.sql";
        branch.ok(&format!(
            "tagflow init > /dev/null && git init -qb main && git add . && git commit -qm all && \
             git update-ref refs/remotes/origin/main HEAD && git checkout -qb branch && \
             sed -i \"s/'30' DAY/'29' DAY/\" {tag} && git commit -qam changed"
        ));
        branch
    }

    /// Runs a script as the hosting services do.
    fn run(&self, script: &str, variables: &[(&str, &str)]) -> (bool, String) {
        let binary = Path::new(env!("CARGO_BIN_EXE_tagflow")).parent().unwrap();
        let path = format!("{}:{}:{}", self.tools.path().display(), binary.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script]).current_dir(self.folder.path());
        command.env("PATH", path).envs(variables.iter().copied());
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "test").env(format!("GIT_{who}_EMAIL"), "test@example.com");
        }
        let output = command.output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    fn ok(&self, script: &str) -> String {
        let (succeeded, text) = self.run(script, &[]);
        assert!(succeeded, "{script}\n{text}");
        text
    }

    /// A program of the hosting service: it answers with the file `answer`, and notes its arguments.
    fn play(&self, name: &str) {
        let path = self.tools.path().join(name);
        let note = format!("printf '%s ' \"$@\" >> {0}/asked; echo >> {0}/asked", self.tools.path().display());
        fs::write(&path, format!("#!/bin/sh\n{note}\ncat {}/answer\n", self.tools.path().display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn answer(&self, text: &str) {
        fs::write(self.tools.path().join("answer"), text).unwrap();
        let _ = fs::remove_file(self.tools.path().join("asked"));
    }

    fn asked(&self) -> String {
        fs::read_to_string(self.tools.path().join("asked")).unwrap()
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap()
    }
}

fn at<'y>(yaml: &'y Yaml<'y>, path: &[&str]) -> &'y Yaml<'y> {
    path.iter()
        .fold(yaml, |yaml, key| yaml.as_mapping_get(key).unwrap_or_else(|| panic!("there is no {key} in {yaml:?}")))
}

fn word<'y>(yaml: &'y Yaml<'y>) -> &'y str {
    yaml.as_str().unwrap_or_else(|| panic!("{yaml:?} is no text"))
}

#[test]
fn steps_for_github_check_test_and_comment_the_plan() {
    let branch = Branch::new();
    let text = branch.text(".github/workflows/tagflow.yml");
    let documents = Yaml::load_from_str(&text).unwrap();
    let job = at(&documents[0], &["jobs", "tags"]);
    assert_eq!(word(at(&documents[0], &["permissions", "pull-requests"])), "write");
    let steps = at(job, &["steps"]).as_vec().unwrap();
    assert_eq!(at(&steps[0], &["with", "fetch-depth"]).as_integer(), Some(0));
    let summary = branch.tools.path().join("summary").display().to_string();
    let variables = [
        ("GITHUB_BASE_REF", "main"),
        ("GITHUB_STEP_SUMMARY", summary.as_str()),
        ("GITHUB_REPOSITORY", "shop/tags"),
        ("PULL_REQUEST", "7"),
    ];
    branch.play("gh");
    branch.answer("");
    let scripts: Vec<&str> = steps[1..].iter().map(|step| word(at(step, &["run"]))).collect();
    assert_eq!(scripts.len(), 5);
    for script in &scripts {
        let (succeeded, text) = branch.run(script, &variables);
        assert!(succeeded, "{script}\n{text}");
    }
    let plan = branch.text("plan.md");
    assert!(plan.starts_with("<!-- tagflow plan -->\n### Tags: 1 changed, 1 unchanged\n"), "{plan}");
    assert_eq!(fs::read_to_string(&summary).unwrap(), plan);
    let asked = branch.asked();
    assert!(asked.contains("--method POST repos/shop/tags/issues/7/comments --field body=@plan.md"), "{asked}");
    // The comment that is there is written anew.
    branch.answer("123\n124\n");
    assert!(branch.run(scripts[4], &variables).0);
    assert!(
        branch.asked().contains("--method PATCH repos/shop/tags/issues/comments/123 --field"),
        "{}",
        branch.asked()
    );

    // A mistake fails the check with an annotation, and the comment says so.
    branch.ok("sed -i 's/amount/amuont/' tags/consumption/spend_30d.sql");
    let (succeeded, text) = branch.run(scripts[0], &variables);
    assert!(!succeeded && text.contains("::error file=tags/consumption/spend_30d.sql"), "{text}");
    assert!(!branch.run(scripts[3], &variables).0);
    assert!(branch.text("plan.md").contains("the project has errors, nothing would change"));
}

#[test]
fn jobs_for_gitlab_check_test_and_comment_the_plan() {
    let branch = Branch::new();
    let text = branch.text(".gitlab-ci.yml");
    let documents = Yaml::load_from_str(&text).unwrap();
    let script = |job: &str| -> String {
        assert_eq!(word(at(&documents[0], &[job, "extends"])), ".tags");
        let lines = at(&documents[0], &[job, "script"]).as_vec().unwrap();
        lines.iter().map(|line| format!("{}\n", word(line))).collect()
    };
    assert_eq!(word(at(&documents[0], &[".tags", "variables", "GIT_DEPTH"])), "0");
    let base = branch.ok("git rev-parse origin/main");
    let variables = [
        ("CI_MERGE_REQUEST_DIFF_BASE_SHA", base.trim()),
        ("CI_API_V4_URL", "https://gitlab.example/api/v4"),
        ("CI_PROJECT_ID", "5"),
        ("CI_MERGE_REQUEST_IID", "7"),
    ];
    for job in ["tags check", "tags test", "tags plan"] {
        let (succeeded, text) = branch.run(&script(job), &variables);
        assert!(succeeded, "{job}\n{text}");
    }
    for report in ["check.xml", "tests.xml"] {
        assert!(branch.text(report).starts_with("<?xml"), "{report}");
    }
    assert!(branch.text("plan.md").contains("1 changed, 1 unchanged"));

    branch.play("curl");
    let with_token = [&variables[..], &[("TAGFLOW_GITLAB_TOKEN", "secret")]].concat();
    let notes = "https://gitlab.example/api/v4/projects/5/merge_requests/7/notes";
    branch.answer("[{\"id\": 1, \"body\": \"somebody's\"}]");
    assert!(branch.run(&script("tags plan"), &with_token).0);
    assert!(
        branch.asked().contains(&format!("--request POST --data-urlencode body@plan.md {notes} ")),
        "{}",
        branch.asked()
    );
    branch.answer("[{\"id\": 1, \"body\": \"somebody's\"}, {\"id\": 2, \"body\": \"<!-- tagflow plan -->\\nold\"}]");
    assert!(branch.run(&script("tags plan"), &with_token).0);
    assert!(
        branch.asked().contains(&format!("--request PUT --data-urlencode body@plan.md {notes}/2 ")),
        "{}",
        branch.asked()
    );

    branch.ok("sed -i 's/amount/amuont/' tags/consumption/spend_30d.sql");
    let (succeeded, text) = branch.run(&script("tags check"), &variables);
    assert!(!succeeded && text.contains("did you mean `amount`?"), "{text}");
    let (succeeded, _) = branch.run(&script("tags plan"), &with_token);
    assert!(!succeeded && branch.text("plan.md").contains("the project has errors, nothing would change"));
    assert!(branch.asked().contains("--request PUT"), "it is told all the same");
}
