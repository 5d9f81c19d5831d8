package disk

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// tryLock locks the directory itself: the files in it change places, and a lock
// file would be one more that can be left behind.
func tryLock(dir string) (unlock func() error, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return d.Close, nil
	}
	if err == syscall.EWOULDBLOCK {
		err = errHeld
	} else {
		err = os.NewSyscallError("flock", err)
	}
	return nil, errors.Join(err, d.Close())
}

// holder names the process that has the lock of path, as well as can be found out.
func holder(path string) string {
	locks, err := os.ReadFile("/proc/locks")
	var st unix.Stat_t
	if err == nil {
		err = unix.Stat(path, &st)
	}
	pid := 0
	if err == nil {
		pid = lockOwner(string(locks), st.Ino)
	}
	if pid == 0 {
		return "another process, which cannot be seen from here (in another container?)"
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(command) == 0 {
		return fmt.Sprintf("process %d", pid)
	}
	words := strings.ReplaceAll(strings.TrimRight(string(command), "\x00"), "\x00", " ")
	return fmt.Sprintf("process %d (%s)", pid, strings.Map(printable, words))
}

// lockOwner finds who holds the flock of an inode in the table of proc(5):
//
//	1: FLOCK  ADVISORY  WRITE 3568 fd:00:2531452 0 EOF
//
// The device is not compared: that of btrfs and overlayfs is another one here.
func lockOwner(table string, inode uint64) int {
	suffix := ":" + strconv.FormatUint(inode, 10)
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], suffix) {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}

// printable keeps what a process calls itself from steering a terminal.
func printable(r rune) rune {
	if strconv.IsPrint(r) {
		return r
	}
	return '?'
}
