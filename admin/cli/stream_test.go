package cli

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestBackupIsWholeAndPrivate(t *testing.T) {
	u := newUser(t)
	got := u.run("backup", "a.backup")
	if got.code != 0 || got.stderr != "a.backup: 160000 bytes\n" {
		t.Fatalf("got exit %d, %q", got.code, got.stderr)
	}
	data, err := os.ReadFile("a.backup")
	info, _ := os.Stat("a.backup")
	if err != nil || string(data) != backupText || info.Mode().Perm() != 0o600 {
		t.Errorf("got %d bytes, %v, %v", len(data), info.Mode(), err)
	}
	if got := u.run("backup", "-"); got.stdout != backupText {
		t.Errorf("on standard output: %d bytes", len(got.stdout))
	}
	if got := u.run("restore", "a.backup", "--reason", "undo"); got.code != 0 || got.stdout != "GRPCRoute default/cart restored\n" ||
		!strings.Contains(u.fake.asked(), `"reason":"undo"`) {
		t.Errorf("restore: got exit %d, %q, %q, asked %q", got.code, got.stdout, got.stderr, u.fake.asked())
	}
	u.stdin = backupText
	if got := u.run("restore", "-", "--dry-run"); got.code != 0 || !strings.Contains(got.stderr, "1 object would change; nothing was changed") {
		t.Errorf("dry run: got exit %d, %q", got.code, got.stderr)
	}
}

func TestBackupThatIsCutShortLeavesTheOldOne(t *testing.T) {
	u := newUser(t)
	u.write("a.backup", "the old one")
	u.fake.token = "cut"
	u.write("token", "cut")
	got := u.run("backup", "a.backup", "--token-file", "token")
	if got.code != 1 || !strings.Contains(got.stderr, "the disk went away") {
		t.Errorf("got exit %d, %q", got.code, got.stderr)
	}
	if data, _ := os.ReadFile("a.backup"); string(data) != "the old one" {
		t.Errorf("the old one has %d bytes now", len(data))
	}
	if left, _ := filepath.Glob(".sluice-backup-*"); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
}

func TestBackupReplacesNothingButFiles(t *testing.T) {
	u := newUser(t)
	u.write("folder/old.backup", "the old one")
	links := map[string]string{"link": "folder/old.backup", "full": "/dev/full", "folder-link": "folder"}
	for name, to := range links {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		".": "it is a directory; give a file in it", "folder-link": "it is a directory; give a file in it",
		"nowhere/a.backup": "no such file or directory", "link/a.backup": "not a directory",
	} {
		if got := u.run("backup", name); got.code != 1 || got.stderr != "sluice: backup to "+name+": "+want+"\n" {
			t.Errorf("%s: got exit %d, %q", name, got.code, got.stderr)
		}
	}
	if got := u.run("backup", "full"); got.code != 1 || !strings.Contains(got.stderr, "no space left on device") {
		t.Errorf("a full device: got exit %d, %q", got.code, got.stderr)
	}
	if got := u.run("backup", "link"); got.code != 0 {
		t.Errorf("by a link: got exit %d, %q", got.code, got.stderr)
	}
	if data, _ := os.ReadFile("folder/old.backup"); string(data) != backupText {
		t.Errorf("by a link: the file has %d bytes", len(data))
	}
	for name, to := range links {
		if got, err := os.Readlink(name); got != to {
			t.Errorf("%s links to %q now, %v, want %q", name, got, err, to)
		}
	}
}

// pipe makes a named pipe and opens it for reading.
func pipe(t *testing.T, name string) *os.File {
	t.Helper()
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0) // for reading alone it would wait for a writer
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestBackupGoesIntoAPipe(t *testing.T) {
	u := newUser(t)
	f, read := pipe(t, "pipe"), make(chan string)
	go func() {
		arrived := make([]byte, len(backupText))
		if _, err := io.ReadFull(f, arrived); err != nil {
			t.Error(err)
		}
		read <- string(arrived)
	}()
	if got := u.run("backup", "pipe"); got.code != 0 || got.stderr != "pipe: 160000 bytes\n" {
		t.Errorf("got exit %d, %q", got.code, got.stderr)
	}
	if info, err := os.Lstat("pipe"); err != nil || info.Mode().Type() != fs.ModeNamedPipe {
		t.Fatalf("it is %v now, %v", info.Mode(), err)
	}
	if <-read != backupText {
		t.Error("other bytes arrived")
	}
}

func TestBackupWaitsForNoReaderOfAPipe(t *testing.T) {
	u := newUser(t)
	f := pipe(t, "pipe") // of which nothing is read
	ctx, interrupt := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer interrupt()
	if got := u.runContext(ctx, "backup", "pipe"); got.code != 1 || !strings.Contains(got.stderr, "backup to pipe: interrupted") {
		t.Errorf("got exit %d, %q", got.code, got.stderr)
	}
	f.Close()
	if got := u.run("backup", "pipe"); got.code != 1 || got.stderr != "sluice: backup to pipe: nobody reads it\n" {
		t.Errorf("without a reader: got exit %d, %q", got.code, got.stderr)
	}
}

func TestRestoreSaysWhyAFileIsRefused(t *testing.T) {
	u := newUser(t)
	u.write("a.backup", strings.Repeat("no backup", 50_000))
	if got := u.run("restore", "a.backup"); got.code != 1 || got.stderr != "sluice: this is no backup of a store\n" {
		t.Errorf("got exit %d, %q", got.code, got.stderr)
	}
	if got := u.run("restore", "b.backup"); got.code != 1 || got.stderr != "sluice: read b.backup: no such file or directory\n" {
		t.Errorf("got exit %d, %q", got.code, got.stderr)
	}
}

func TestWatchPrintsUntilItIsInterrupted(t *testing.T) {
	tests := []struct {
		name  string
		args  []string
		asked string
		want  string // the last line
	}{
		{"from now", []string{"watch", "routes"}, `"kind":"GRPCRoute","after":42`, "2026-05-04 15:25:00  GRPCRoute default/cart split: rule all cart-v1=50"},
		{"from before", []string{"watch", "--after", "7", "-o", "json"}, `"after":7`, `{"sequence":42,"time":"2026-05-04T15:25:00Z"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u := newUser(t)
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			out := &lineWriter{after: 2, then: interrupt}
			if err := u.execute(ctx, out, io.Discard, test.args...); err != nil {
				t.Error(err)
			}
			lines := strings.Split(strings.TrimSpace(out.text.String()), "\n")
			if len(lines) != 2 || !strings.HasPrefix(lines[1], test.want) {
				t.Errorf("got %q, want a second line %q", lines, test.want)
			}
			if !strings.Contains(u.fake.asked(), test.asked) {
				t.Errorf("asked %s, want %s", u.fake.asked(), test.asked)
			}
		})
	}
}

func TestWatchSaysWhereToGoOn(t *testing.T) {
	u := newUser(t)
	u.fake.endWatch = true
	got := u.run("watch", "--after", "7")
	want := "sluice: " + filepath.Join(u.dir, socketName) + ": the server ended the watch; start it again with --after 42\n"
	if got.code != 1 || got.stderr != want {
		t.Errorf("got exit %d, %q, want %q", got.code, got.stderr, want)
	}
}

// lineWriter calls then after some lines.
type lineWriter struct {
	text  bytes.Buffer
	after int
	then  func()
}

func (w *lineWriter) Write(b []byte) (int, error) {
	n, err := w.text.Write(b)
	if bytes.Count(w.text.Bytes(), []byte("\n")) == w.after {
		w.then()
	}
	return n, err
}

func TestStatusWaitsUntilTheServerIsReady(t *testing.T) {
	u := newUser(t)
	u.fake.unready = 2
	if got := u.run("status"); got.code != 0 || !strings.Contains(got.stdout, "Ready        no") || !strings.Contains(got.stdout, "Problem: the store is being read") ||
		!strings.Contains(got.stdout, "up to change 40") {
		t.Errorf("got exit %d, %q", got.code, got.stdout)
	}
	if got := u.run("status", "--wait", "1m"); got.code != 0 || !strings.Contains(got.stdout, "Ready        yes") {
		t.Errorf("got exit %d, %q, %q", got.code, got.stdout, got.stderr)
	}
	u.fake.unready = 1_000_000
	if got := u.run("status", "--wait", "1ms"); got.code != 1 {
		t.Errorf("got exit %d, %q, want a failure", got.code, got.stdout)
	}
	if got := u.run("status", "--wait", "10ms", "--data-dir", "/nowhere"); got.code != 1 || !strings.Contains(got.stderr, "no server runs here") {
		t.Errorf("got exit %d, %q", got.code, got.stderr)
	}
}
