//! Opening, connecting, closing.

use crate::{
    flowmesh_status, flowmesh_text,
    guard::{Call, guard, guard_number, guard_value},
    options::flowmesh_open_options,
    wait::Interrupt,
};
use flowmesh::{Mesh, MeshBuilder, Result, Role};
use std::ffi::{CString, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A mesh: this process as the host of a directory, or as a client of its host.
pub struct flowmesh_mesh {
    _opaque: (),
}

/// What a mesh is to its directory.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_role {
    /// It opened it.
    FLOWMESH_ROLE_HOST = 0,
    /// It connected to the process that did.
    FLOWMESH_ROLE_CLIENT = 1,
}

pub(crate) struct MeshHandle {
    pub(crate) mesh: Mesh,
    pub(crate) interrupt: Interrupt,
    directory: Option<CString>,
}

/// § Opening and closing
///
/// Opens `directory` as its host, making it (mode 0700) when it is not there. One process at a time can be the
/// host; the others connect. `options` may be NULL. The mesh in `*out` is the caller's to free.
///
/// Threads: any. Blocks only for the file system.
///
/// # Errors
/// `ALREADY_OPEN`: another process is the host, its pid is the value `pid`. `PERMISSION_DENIED`, `IO`,
/// `RESOURCE_EXHAUSTED`: what the system said. `INVALID_ARGUMENT`: an option is out of its range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_open(
    directory: *const c_char,
    options: *const flowmesh_open_options,
    out: *mut *mut flowmesh_mesh,
) -> flowmesh_status {
    // SAFETY: the arguments are as the manual asks.
    guard("flowmesh_open", |call| unsafe {
        start(call, directory, options, out, |builder, path| builder.open(path))
    })
}

/// Connects to the host of `directory` as a client. `options` may be NULL. The mesh in `*out` is the caller's
/// to free.
///
/// Threads: any. Blocks until the host has answered, at most `connect_timeout_ms`.
///
/// # Errors
/// `NOT_FOUND`: no such directory, or no host has it open. `PERMISSION_DENIED`. `TIMEOUT`: the host does not
/// answer. `DISCONNECTED`: it went away meanwhile. `PROTOCOL`: whoever answered is not FlowMesh.
/// `VERSION_MISMATCH`: host and client have no protocol version in common. `RESOURCE_EXHAUSTED`: the host has as
/// many clients as it takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_connect(
    directory: *const c_char,
    options: *const flowmesh_open_options,
    out: *mut *mut flowmesh_mesh,
) -> flowmesh_status {
    // SAFETY: the arguments are as the manual asks.
    guard("flowmesh_connect", |call| unsafe {
        start(call, directory, options, out, |builder, path| builder.connect(path))
    })
}

/// Connects over TCP to a host that called `flowmesh_listen_tcp` with the same secret. `address` is like
/// `"127.0.0.1:7000"`. Both sides prove that they know the secret; what follows is not encrypted.
///
/// Threads: any. Blocks until the host has answered, at most `connect_timeout_ms`.
///
/// # Errors
/// As `flowmesh_connect`, and `UNAUTHENTICATED`: the secrets differ. `DISCONNECTED`: nobody listens there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_connect_tcp(
    address: *const c_char,
    secret: *const c_void,
    secret_bytes: usize,
    options: *const flowmesh_open_options,
    out: *mut *mut flowmesh_mesh,
) -> flowmesh_status {
    // SAFETY: the arguments are as the manual asks.
    guard("flowmesh_connect_tcp", |call| unsafe {
        let out = call.out(out, std::ptr::null_mut(), "out")?;
        let (address, secret) = (call.text(address, "address")?, call.bytes(secret, secret_bytes, "secret")?);
        let options = call.options(options)?;
        let mesh = options.builder(call)?.connect_tcp(address, secret)?;
        out.set(call.give(MeshHandle::new(call, mesh, &options)?)?);
        Ok(())
    })
}

/// Lets clients of other machines in: listens on `address`, like `"0.0.0.0:7000"`; port 0 picks one. Host only.
///
/// `secret` is at least 16 bytes that clients must know. The address that was bound is written to `bound`,
/// NUL-terminated, when `bound_bytes` is more than 0; 64 bytes hold any.
///
/// Threads: any. Does not block.
///
/// # Errors
/// `INVALID_ARGUMENT`: the address cannot be read, the secret is too short, or `bound` is too small.
/// `UNAUTHENTICATED`: no secret. `UNSUPPORTED`: this mesh is a client. `IO`: the address is taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_listen_tcp(
    mesh: *mut flowmesh_mesh,
    address: *const c_char,
    secret: *const c_void,
    secret_bytes: usize,
    bound: *mut c_char,
    bound_bytes: usize,
) -> flowmesh_status {
    guard("flowmesh_listen_tcp", |call| {
        let mesh = call.live::<MeshHandle>(mesh)?;
        // SAFETY: the arguments are as the manual asks.
        let (address, secret) =
            unsafe { (call.text(address, "address")?, call.bytes(secret, secret_bytes, "secret")?) };
        // The longest is `[v6%scope]:port`; checked first, so that a refusal leaves no listener behind.
        if bound_bytes > 0 && bound_bytes < 64 {
            return Err(call.invalid("bound_bytes", bound_bytes, "it is neither 0 nor at least 64"));
        }
        let mut room: &mut [_] = &mut [];
        if bound_bytes > 0 {
            // SAFETY: the manual asks for room of `bound_bytes`.
            room = unsafe { call.room(bound, bound_bytes, "bound") }?;
        }
        let text = mesh.mesh.listen_tcp(address, secret)?.to_string();
        for (place, byte) in room.iter_mut().zip(text.bytes().chain([0])) {
            place.write(byte as c_char);
        }
        Ok(())
    })
}

/// Closes the mesh: every call that waits on it or on what was made from it ends with `CLOSED`, here and, when it
/// is the host, with `DISCONNECTED` at its clients. Closing again does nothing. The handle is still to be freed.
///
/// Threads: any, also while others wait, and inside handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_mesh_close(mesh: *mut flowmesh_mesh) -> flowmesh_status {
    guard("flowmesh_mesh_close", |call| {
        call.live::<MeshHandle>(mesh)?.mesh.close();
        Ok(())
    })
}

/// Closes the mesh and frees its handle. Handles made from it stay valid: they answer `CLOSED` and are freed as
/// always, in any order. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_mesh_free(mesh: *mut flowmesh_mesh) -> flowmesh_status {
    guard("flowmesh_mesh_free", |call| call.free::<MeshHandle>(mesh, |mesh| mesh.mesh.close()))
}

/// One of `enum flowmesh_role`, or a negative status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_mesh_role(mesh: *const flowmesh_mesh) -> i32 {
    guard_number("flowmesh_mesh_role", |call| {
        Ok(match call.live::<MeshHandle>(mesh)?.mesh.role() {
            Role::Host => flowmesh_role::FLOWMESH_ROLE_HOST,
            Role::Client => flowmesh_role::FLOWMESH_ROLE_CLIENT,
        } as i32)
    })
}

/// The number of its session at the host, 0 for the host itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_mesh_session(mesh: *const flowmesh_mesh) -> u32 {
    guard_value("flowmesh_mesh_session", 0, |call| Ok(call.live::<MeshHandle>(mesh)?.mesh.session()))
}

/// The process that is the host.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_mesh_host_pid(mesh: *const flowmesh_mesh) -> u32 {
    guard_value("flowmesh_mesh_host_pid", 0, |call| Ok(call.live::<MeshHandle>(mesh)?.mesh.host_pid()))
}

/// The largest payload it takes, as its host was opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_mesh_max_message_bytes(mesh: *const flowmesh_mesh) -> usize {
    guard_value("flowmesh_mesh_max_message_bytes", 0, |call| {
        Ok(call.live::<MeshHandle>(mesh)?.mesh.max_message_bytes())
    })
}

/// Its directory; no text (`data` is NULL) for a client that came over TCP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_mesh_directory(mesh: *const flowmesh_mesh) -> flowmesh_text {
    guard_value("flowmesh_mesh_directory", flowmesh_text::NONE, |call| {
        let mesh = call.live::<MeshHandle>(mesh)?;
        Ok(mesh.directory.as_ref().map_or(flowmesh_text::NONE, |path| flowmesh_text {
            data: path.as_ptr(),
            size: path.count_bytes(),
        }))
    })
}

/// 1 when it was closed or lost its host, 0 when not, or a negative status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_mesh_is_closed(mesh: *const flowmesh_mesh) -> i32 {
    guard_number("flowmesh_mesh_is_closed", |call| {
        Ok(i32::from(call.live::<MeshHandle>(mesh)?.mesh.is_closed()))
    })
}

impl MeshHandle {
    fn new(call: Call, mesh: Mesh, options: &flowmesh_open_options) -> Result<Self> {
        let directory =
            mesh.directory().and_then(|path| CString::new(path.into_os_string().into_encoded_bytes()).ok());
        Ok(Self { mesh, interrupt: Interrupt::of(call, options)?, directory })
    }
}

/// # Safety
/// The pointers are as `flowmesh_open` asks.
unsafe fn start(
    call: Call,
    directory: *const c_char,
    options: *const flowmesh_open_options,
    out: *mut *mut flowmesh_mesh,
    start: impl FnOnce(MeshBuilder, &Path) -> Result<Mesh>,
) -> Result<()> {
    // SAFETY: the caller's duty, passed on.
    unsafe {
        let out = call.out(out, std::ptr::null_mut(), "out")?;
        if directory.is_null() {
            return Err(call.null("directory"));
        }
        // A path is bytes: it need not be UTF-8.
        let path = Path::new(OsStr::from_bytes(std::ffi::CStr::from_ptr(directory).to_bytes()));
        let options = call.options(options)?;
        Interrupt::of(call, &options)?;
        let mesh = start(options.builder(call)?, path)?;
        out.set(call.give(MeshHandle::new(call, mesh, &options)?)?);
        Ok(())
    }
}
