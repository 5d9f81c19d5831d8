package disk

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func init() {
	children["holder"] = func() int { return hold(openStore) }
	children["tool"] = func() int { return hold(openTool) }
}

// hold is the child: it opens something, says so, and holds it until its input
// ends.
func hold(open func(dir string) (io.Closer, error)) int {
	held, err := open(os.Getenv(dirEnv))
	if err != nil {
		fmt.Fprintln(os.Stderr, "holder:", err)
		return 1
	}
	fmt.Println("held")
	io.Copy(io.Discard, os.Stdin)
	held.Close()
	return 0
}

func openStore(dir string) (io.Closer, error) { return Open(Options{Dir: dir}) }

// openTool does what bbolt's own command does.
func openTool(dir string) (io.Closer, error) {
	return bbolt.Open(filepath.Join(dir, dbName), 0o600, nil)
}

func TestOpenNamesTheProcessThatHoldsTheStore(t *testing.T) {
	for _, child := range []string{"holder", "tool"} {
		t.Run(child, func(t *testing.T) {
			dir := t.TempDir()
			mustClose(t, mustOpen(t, Options{Dir: dir}))
			cmd := exec.Command(os.Args[0], "serve", "--secret\x1b")
			cmd.Env = append(os.Environ(), childEnv+"="+child, dirEnv+"="+dir)
			end, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			said, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := said.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			// What the holder is writing must not be taken for a leftover.
			unfinished := filepath.Join(dir, copyName+newSuffix)
			if err := os.WriteFile(unfinished, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_, err = Open(Options{Dir: dir, LockTimeout: 50 * time.Millisecond})
			want := fmt.Sprintf("in use by process %d (%s serve --secret?)", cmd.Process.Pid, os.Args[0])
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("open: %v, want %q in it", err, want)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v to say so", took)
			}
			if _, err := os.Stat(unfinished); child == "holder" && err != nil {
				t.Errorf("unfinished file of the holder: %v", err)
			}
			end.Close()
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
			mustClose(t, mustOpen(t, Options{Dir: dir}))
		})
	}
}

// TestOpenWaitsForTheStore lets the holder go while Open waits, as an upgrade does.
func TestOpenWaitsForTheStore(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, Options{Dir: dir})
	opened := make(chan error)
	go func() {
		next, err := Open(Options{Dir: dir, LockTimeout: time.Minute})
		if err == nil {
			err = next.Close()
		}
		opened <- err
	}()
	mustClose(t, db)
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestLockOwnerIsReadFromTheTable(t *testing.T) {
	const table = `1: POSIX  ADVISORY  WRITE 11 fd:00:77 0 EOF
2: FLOCK  ADVISORY  WRITE 12 fd:00:7 0 EOF
3: FLOCK  ADVISORY  WRITE 13 00:1c:77 0 EOF
3: -> FLOCK  ADVISORY  WRITE 14 00:1c:77 0 EOF
4: FLOCK  ADVISORY  WRITE -1 fd:00:78 0 EOF
5: FLOCK
`
	for inode, want := range map[uint64]int{77: 13, 7: 12, 78: 0, 5: 0} {
		if got := lockOwner(table, inode); got != want {
			t.Errorf("inode %d: process %d, want %d", inode, got, want)
		}
	}
}

func TestOpenRefusesNetworkFileSystems(t *testing.T) {
	mounted := func(kind string) func() string { return func() string { return kind } }
	for _, tt := range []struct {
		magic   int64
		mounted string
		want    string
	}{
		{0xEF53, "ext4", ""},
		{0x01021994, "tmpfs", ""},
		{0x6969, "nfs4", "NFS"},
		{0xFF534D42, "cifs", "CIFS"},
		{0xFE534D42, "smb3", "SMB"},
		{0x00C36400, "ceph", "Ceph"},
		{0x65735546, "fuse.sshfs", "fuse.sshfs"},
		{0x65735546, "fuse.glusterfs", "fuse.glusterfs"},
		{0x65735546, "fuseblk", ""},
		{0x65735546, "", ""},
	} {
		if got := networkName(tt.magic, mounted(tt.mounted)); got != tt.want {
			t.Errorf("file system %#x (%s): %q, want %q", tt.magic, tt.mounted, got, tt.want)
		}
	}
	if kind := mountType("/proc"); kind != "proc" {
		t.Errorf("/proc is mounted as %q, want %q", kind, "proc")
	}
}
