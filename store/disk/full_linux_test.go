package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func init() { children["full"] = fillDisk }

// TestDBOutlivesFullDisk fills a real, small file system, in a process with mounts
// of its own.
func TestDBOutlivesFullDisk(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=full", dirEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		// Who may not mount may in a user namespace of his own.
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	}
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.Is(err, syscall.EPERM) || errors.As(err, &exit) && exit.ExitCode() == exitNoMount {
		t.Skip("no small file system to fill: this user may have no mounts of his own")
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	t.Logf("%s", output)
}

// fillDisk is the child: it fills a small file system, again and again, and leaves
// a few more pages each time.
func fillDisk() int {
	f := &filler{mount: os.Getenv(dirEnv)}
	if err := f.mountSmall(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitNoMount
	}
	err := f.open()
	if err == nil {
		err = f.write(20)
	}
	for _, free := range []int{0, 1, 2, 3, 5, 8, 13, 21} {
		if err == nil {
			err = f.round(free)
		}
		fmt.Printf("with %d pages: %d written in all\n", free, f.last)
	}
	if err == nil {
		err = errors.Join(f.db.Close(), Verify(f.db.path(dbName)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A filler has a store on a file system of its own.
type filler struct {
	mount string
	db    *DB
	last  int // step that was written
}

// exitNoMount is what the child exits with where it may not mount anything.
const exitNoMount = 5

func (f *filler) mountSmall() error {
	// What is mounted here must not be seen elsewhere.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("tmpfs", f.mount, "tmpfs", 0, "size=2m"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return nil
}

func (f *filler) open() (err error) {
	f.db, err = Open(Options{Dir: filepath.Join(f.mount, "store")})
	if err == nil && f.db.Recovery() != "" {
		err = fmt.Errorf("recovery: %s", f.db.Recovery())
	}
	return err
}

// write writes up to n more steps, and stops at the first that is refused.
func (f *filler) write(n int) error {
	for range n {
		if err := tryPut(f.db, step(f.last+1)...); err != nil {
			return err
		}
		f.last++
	}
	return nil
}

// round fills the file system but for a few pages, writes until it is full, makes
// room and writes again.
func (f *filler) round(free int) error {
	ballast := filepath.Join(f.mount, "ballast")
	if err := f.leave(ballast, free); err != nil {
		return err
	}
	if err := f.write(1000); !errors.Is(err, ErrFull) {
		return fmt.Errorf("write: %w, want %w", err, ErrFull)
	}
	if err := f.holds(); err != nil {
		return fmt.Errorf("full: %w", err)
	}
	if err := f.db.keepCopy(context.Background()); free < 3 && !errors.Is(err, ErrFull) {
		return fmt.Errorf("copy: %w, want %w", err, ErrFull)
	}
	if free%2 == 1 { // a restart makes it no worse
		if err := errors.Join(f.db.Close(), f.open(), f.holds()); err != nil {
			return fmt.Errorf("opened again while full: %w", err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if err := f.write(3); err != nil {
		return fmt.Errorf("write with room again: %w", err)
	}
	if err := f.db.keepCopy(context.Background()); err != nil {
		return fmt.Errorf("copy with room again: %w", err)
	}
	return f.holds()
}

// leave takes all room but some pages.
func (f *filler) leave(ballast string, free int) error {
	file, err := os.Create(ballast)
	if err != nil {
		return err
	}
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, pageSize))
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return file.Truncate(max(0, info.Size()/pageSize-int64(free)) * pageSize)
}

// holds checks that all that was written is there, and nothing else.
func (f *filler) holds() error {
	got, err := readAll(f.db)
	if err == nil && !maps.Equal(got, rowsAfter(f.last)) {
		err = fmt.Errorf("rows are not those of step %d", f.last)
	}
	return err
}
