//! Users and groups of an image, from its `/etc/passwd` and `/etc/group`.
//!
//! Invariant: a name is resolved as container engines resolve it (the OCI image specification leaves it to them; runc's
//! rules are followed), and is a number from here on.

use super::image::{Rootfs, find};
use super::names::MAX_ID;

/// The maximum number of bytes read of either file: enough for thousands of accounts; images have a few dozen.
const MAX_FILE: usize = 1 << 20;

/// Every account of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// A user as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Sorted, without duplicates.
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// A name that no account has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    User(String),
    Group(String),
}

impl Accounts {
    /// Reads both files; a missing file has no accounts.
    pub(super) fn read(root: &dyn Rootfs) -> Self {
        let lines = |path| -> Vec<Vec<String>> {
            let found = find(root, path).ok();
            let bytes = found.and_then(|found| root.read(&found.path, MAX_FILE).ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).lines().map(fields).collect()
        };
        Self {
            users: lines("/etc/passwd").iter().filter_map(|line| user(line)).collect(),
            groups: lines("/etc/group").iter().filter_map(|line| group(line)).collect(),
        }
    }

    /// `user`, `user:group`, `user:` or `:group`, each by name or number. A number need not be in any file. An empty part
    /// counts as missing (`GetExecUser` of moby's `sys/user`): root, or the user's own groups.
    pub(super) fn identity(&self, spec: &str) -> Result<Identity, Unknown> {
        let (name, group) = spec.split_once(':').unwrap_or((spec, ""));
        let group = Some(group).filter(|group| !group.is_empty());
        let account = self.account(if name.is_empty() { "root" } else { name })?;
        let Some(group) = group else {
            let groups = self.memberships(&account.name);
            return Ok(Identity { uid: account.uid, gid: account.gid, groups, home: account.home });
        };
        Ok(Identity { uid: account.uid, gid: self.group(group)?, groups: Vec::new(), home: account.home })
    }

    /// A group by name or number. A number is never taken as a name.
    pub(super) fn group(&self, name: &str) -> Result<u32, Unknown> {
        let unknown = || Unknown::Group(name.to_owned());
        if let Ok(gid) = name.parse::<u32>() {
            return Some(gid).filter(|gid| *gid <= MAX_ID).ok_or_else(unknown);
        }
        let known = self.groups.iter().find(|group| group.name == name);
        known.map(|group| group.gid).ok_or_else(unknown)
    }

    pub(super) fn user_names(&self) -> impl Iterator<Item = &str> {
        self.users.iter().map(|user| user.name.as_str())
    }

    pub(super) fn group_names(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|group| group.name.as_str())
    }

    fn account(&self, name: &str) -> Result<User, Unknown> {
        let unknown = || Unknown::User(name.to_owned());
        let Ok(uid) = name.parse::<u32>() else {
            // Root exists even without a file that defines it.
            let root = || User { name: "root".into(), uid: 0, gid: 0, home: "/".into() };
            let known = self.users.iter().find(|user| user.name == name).cloned();
            return known.or_else(|| (name == "root").then(root)).ok_or_else(unknown);
        };
        if uid > MAX_ID {
            return Err(unknown());
        }
        let known = self.users.iter().find(|user| user.uid == uid).cloned();
        Ok(known.unwrap_or_else(|| User { name: name.to_owned(), uid, gid: 0, home: "/".to_owned() }))
    }

    /// The groups that list a user.
    fn memberships(&self, name: &str) -> Vec<u32> {
        let listed = self.groups.iter().filter(|group| group.members.iter().any(|member| member == name));
        let mut groups: Vec<u32> = listed.map(|group| group.gid).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

/// A user's or group's number.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

fn fields(line: &str) -> Vec<String> {
    line.split(':').map(str::to_owned).collect()
}

/// `name:password:uid:gid:comment:home:shell`, `passwd(5)`. A line of another form is ignored.
fn user(line: &[String]) -> Option<User> {
    let [name, _, uid, gid, rest @ ..] = line else { return None };
    let home = rest.get(1).filter(|home| home.starts_with('/')).map_or("/", String::as_str);
    Some(User { name: name.clone(), uid: id(uid)?, gid: id(gid)?, home: home.to_owned() })
}

/// `name:password:gid:member,member`, `group(5)`.
fn group(line: &[String]) -> Option<Group> {
    let [name, _, gid, rest @ ..] = line else { return None };
    let members =
        rest.first().map_or("", String::as_str).split(',').map(str::trim).map(str::to_owned).collect();
    Some(Group { name: name.clone(), gid: id(gid)?, members })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Files;
    use super::*;

    fn accounts() -> Accounts {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnginx:x:101:102:n:/var/cache/nginx:/bin/false\nbroken\n7:x:70:70::/:\n";
        let group = "root:x:0:\nnginx:x:102:\nssl:x:33:nginx,other\nadm:x:4:nginx\n";
        Accounts::read(&Files::default().file("/etc/passwd", 0o644, passwd).file("/etc/group", 0o644, group))
    }

    fn identity(spec: &str) -> (u32, u32, Vec<u32>, String) {
        let found = accounts().identity(spec).unwrap();
        (found.uid, found.gid, found.groups, found.home)
    }

    #[test]
    fn users_are_resolved_as_by_container_engines() {
        let home = "/var/cache/nginx".to_owned();
        assert_eq!(identity("nginx"), (101, 102, vec![4, 33], home.clone()));
        assert_eq!(identity("101"), (101, 102, vec![4, 33], home.clone()));
        assert_eq!(identity("nginx:ssl"), (101, 33, vec![], home.clone()));
        assert_eq!(identity("nginx:5"), (101, 5, vec![], home));
        assert_eq!(identity("1000"), (1000, 0, vec![], "/".to_owned()));
        assert_eq!(identity("1000:1001"), (1000, 1001, vec![], "/".to_owned()));
        assert_eq!(identity("7").0, 7, "digits are an id, even if a user has that name");
        assert_eq!(identity("nginx:"), identity("nginx"));
        assert_eq!(identity(":ssl"), (0, 33, vec![], "/root".to_owned()));
        assert_eq!(identity(""), (0, 0, vec![], "/root".to_owned()));
        assert_eq!(accounts().identity("ngnix"), Err(Unknown::User("ngnix".into())));
        assert_eq!(accounts().identity("nginx:x"), Err(Unknown::Group("x".into())));
        // To the kernel it means "leave unchanged": the service would remain root.
        assert_eq!(accounts().identity("4294967295"), Err(Unknown::User("4294967295".into())));
        assert_eq!(accounts().identity("7:2147483648"), Err(Unknown::Group("2147483648".into())));
    }

    #[test]
    fn root_needs_no_file() {
        let none = Accounts::read(&Files::default());
        assert_eq!(none.identity("root").map(|found| found.uid), Ok(0));
        assert_eq!(none.identity("-1"), Err(Unknown::User("-1".into())));
        // To setresuid(2) it means "leave unchanged": the service would remain root.
        assert_eq!(none.identity("4294967295"), Err(Unknown::User("4294967295".into())));
    }
}
