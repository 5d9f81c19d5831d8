package disk

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// datasync is fsync without the times.
func datasync(file *os.File) error {
	for {
		err := syscall.Fdatasync(int(file.Fd()))
		if err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// networkSystems are file systems on which neither a lock nor a mapping can be
// relied on: bbolt on them has hung, and has lost data.
var networkSystems = map[int64]string{
	unix.NFS_SUPER_MAGIC:   "NFS",
	unix.SMB_SUPER_MAGIC:   "SMB",
	unix.CIFS_SUPER_MAGIC:  "CIFS",
	unix.SMB2_SUPER_MAGIC:  "SMB",
	unix.AFS_SUPER_MAGIC:   "AFS",
	unix.AFS_FS_MAGIC:      "AFS",
	unix.CEPH_SUPER_MAGIC:  "Ceph",
	unix.CODA_SUPER_MAGIC:  "Coda",
	unix.OCFS2_SUPER_MAGIC: "OCFS2",
	unix.NCP_SUPER_MAGIC:   "NCP",
	0x0bd00bd0:             "Lustre",
	0x47504653:             "GPFS",
	0x01161970:             "GFS2",
}

// networkFUSE are the ones that a process of the machine serves.
var networkFUSE = []string{"sshfs", "glusterfs", "s3fs", "ceph", "davfs", "rclone", "gcsfuse", "juicefs"}

// refuseNetwork returns an error that names the file system when dir lies on one
// of another machine.
func refuseNetwork(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("find out the file system: %w", err)
	}
	name := networkName(int64(uint32(fs.Type)), func() string { return mountType(dir) })
	if name != "" {
		return fmt.Errorf("it lies on a network file system (%s), where locks and mapped files cannot be relied on; choose a local directory", name)
	}
	return nil
}

// networkName returns the name of a network file system, or nothing. What kind a
// FUSE is only the table of mounts knows.
func networkName(magic int64, mounted func() string) string {
	if magic != unix.FUSE_SUPER_MAGIC {
		return networkSystems[magic]
	}
	kind := mounted()
	for _, network := range networkFUSE {
		if strings.Contains(kind, network) {
			return kind
		}
	}
	return ""
}

// mountType returns the type of the file system that dir lies on, as the table of
// mounts calls it: the part behind " - " in proc(5)'s mountinfo.
func mountType(dir string) string {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return ""
	}
	device := fmt.Sprintf(" %d:%d ", unix.Major(st.Dev), unix.Minor(st.Dev))
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(table)) {
		mount, system, found := strings.Cut(line, " - ")
		if found && strings.Contains(mount, device) {
			kind, _, _ := strings.Cut(system, " ")
			return kind
		}
	}
	return ""
}
