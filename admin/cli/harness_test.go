package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// TestMain refuses goroutines of ours that outlive the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := goroutinesLeft(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines are left:\n\n"+left)
		code = 1
	}
	os.Exit(code)
}

func goroutinesLeft() (left string) {
	for range 200 {
		left = ""
		all := make([]byte, 1<<20)
		for _, g := range strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n") {
			if !strings.Contains(g, "goroutinesLeft") && (strings.Contains(g, "sluice/") || strings.Contains(g, "net/http")) {
				left += g + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
		time.Sleep(10 * time.Millisecond) // allow:sleep, a poll
	}
	return left
}

// now is when the tests take place.
var now = time.Date(2026, time.May, 4, 15, 30, 0, 0, time.UTC)

// user is somebody at a command line, with a server on the same machine.
type user struct {
	t     *testing.T
	opts  Options
	env   map[string]string
	stdin string
	fake  *fakeServer
	dir   string // of the socket
}

// newUser starts a server in a folder of its own and goes to an empty one. The
// folder of the socket is not the test's own: its path could be too long for one.
func newUser(t *testing.T) *user {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Chdir(t.TempDir())
	u := &user{t: t, dir: dir, env: map[string]string{}, fake: newFakeServer()}
	u.opts = Options{
		DataDir: dir, SystemDir: filepath.Join(dir, "service"), ConfigDir: filepath.Join(dir, "config"), Version: "1.2.3",
		Getenv: func(name string) string { return u.env[name] },
		Now:    func() time.Time { return now },
	}
	u.fake.serveSocket(t, filepath.Join(dir, socketName))
	return u
}

// outcome is what came of a command line.
type outcome struct {
	stdout, stderr string
	code           int // as main has it
}

func (u *user) run(args ...string) outcome {
	u.t.Helper()
	return u.runContext(u.t.Context(), args...)
}

func (u *user) runContext(ctx context.Context, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	err := u.execute(ctx, &stdout, &stderr, args...)
	o := outcome{code: 1}
	switch {
	case err == nil:
		o.code = 0
	case errors.As(err, new(UsageError)):
		o.code = 2
	}
	if err != nil && !errors.Is(err, ErrDiffers) {
		fmt.Fprintln(&stderr, "sluice:", err)
	}
	o.stdout, o.stderr = stdout.String(), stderr.String()
	return o
}

// execute runs the commands under a root that is as that of main.
func (u *user) execute(ctx context.Context, stdout, stderr io.Writer, args ...string) error {
	root := &cobra.Command{Use: "sluice", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(Commands(u.opts)...)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageErrorf("%w; see %s --help", err, cmd.CommandPath())
	})
	root.SetArgs(args)
	root.SetIn(strings.NewReader(u.stdin))
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

// write makes a file in the user's folder.
func (u *user) write(name, text string) {
	u.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		u.t.Fatal(err)
	}
}

// transcript runs each line of testdata/NAME.txt that begins with "$ sluice" and
// compares what it does with what the file says of it: output, notes (marked !),
// what the server was asked to change (marked >), and the exit code unless it is 0.
// A line "< text" before a command is its standard input; "#" begins a remark.
func transcript(t *testing.T, name string, u *user, folder string) {
	t.Helper()
	file := filepath.Join(folder, "testdata", name+".txt")
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for line := range strings.Lines(string(want)) {
		switch {
		case strings.HasPrefix(line, "$ sluice "):
			got.WriteString(line)
			got.WriteString(u.replay(line[len("$ sluice "):]))
			u.stdin = ""
		case strings.HasPrefix(line, "< "):
			got.WriteString(line)
			u.stdin += line[2:]
		case strings.HasPrefix(line, "#"):
			got.WriteString(line)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got.String() != string(want) {
		t.Errorf("%s: this is what happened; -update writes it down\n%s", file, firstDifference(got.String(), string(want)))
	}
}

// replay runs one line and writes down what it did.
func (u *user) replay(line string) string {
	u.fake.forget()
	o := u.run(shellWords(line)...)
	var b strings.Builder
	for line := range strings.Lines(u.fake.asked()) {
		b.WriteString("> " + line)
	}
	b.WriteString(u.neutral(o.stdout))
	for line := range strings.Lines(u.neutral(o.stderr)) {
		b.WriteString("! " + line)
	}
	if o.code != 0 {
		fmt.Fprintf(&b, "[exit %d]\n", o.code)
	}
	return b.String() + "\n"
}

// neutral takes out what is different on each machine.
func (u *user) neutral(s string) string { return strings.ReplaceAll(s, u.dir, "DATA") }

// shellWords splits a line as a shell would, with single quotes.
func shellWords(line string) (args []string) {
	quoted, inWord := false, false
	var word strings.Builder
	for _, r := range strings.TrimSuffix(line, "\n") + " " {
		switch {
		case r == '\'':
			quoted, inWord = !quoted, true
		case r == ' ' && !quoted:
			if inWord {
				args = append(args, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	return args
}

// firstDifference shows where two texts part.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			from := max(0, i-5)
			return fmt.Sprintf("line %d: got\n%s\nwant\n%s", i+1,
				strings.Join(g[from:min(len(g), i+10)], "\n"), strings.Join(w[from:min(len(w), i+10)], "\n"))
		}
	}
	return "the file goes on"
}
