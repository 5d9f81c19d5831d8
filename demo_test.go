package main

import (
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestDemoShowsEveryKindOfRPCAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	stdout, stderr, code := invoke(t.Context(),
		"demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--duration", "2500ms", "--rate", "100")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d, stderr %q, want 0 and nothing; stdout:\n%s", code, stderr, stdout)
	}
	if !regexp.MustCompile(`\n  grpcurl -plaintext localhost:\d+ list\n`).MatchString(stdout) {
		t.Errorf("no line to paste in:\n%s", stdout)
	}
	for _, line := range []string{`\n +1s +\d+ +\d+ `, `\n +2s +\d+ +\d+ +\d`} {
		if !regexp.MustCompile(line).MatchString(stdout) {
			t.Errorf("no line like %q in:\n%s", line, stdout)
		}
	}
	total := regexp.MustCompile(`\n(\d+) RPCs: (\d+) by v1, (\d+) by v2, 0 errors. Nothing is left behind.\n`).FindStringSubmatch(stdout)
	if total == nil {
		t.Fatalf("no sum in:\n%s", stdout)
	}
	rpcs, _ := strconv.Atoi(total[1])
	v1, _ := strconv.Atoi(total[2])
	v2, _ := strconv.Atoi(total[3])
	if rpcs < 100 || rpcs > 260 || v1+v2 != rpcs {
		t.Errorf("%d RPCs, %d by v1 and %d by v2: want about 250, each by one of them", rpcs, v1, v2)
	}
	// The split is exact over every 100 picks; what is left of the last 100 may
	// lie anywhere in them.
	if hundreds := rpcs / 100; v2 < 10*hundreds || v2 > 10*(hundreds+1) {
		t.Errorf("%d of %d RPCs by v2, want 10 of each 100", v2, rpcs)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDemoSaysWhoHoldsThePort(t *testing.T) {
	s := startServer(t)
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	_, stderr, code := invoke(t.Context(), "demo", "--listen", s.listen)
	if code != 1 || !strings.Contains(stderr, "choose another address with --listen") {
		t.Errorf("exit %d, stderr %q, want 1 and what to do", code, stderr)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// program starts the command line as a process of its own.
func program(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Args[0] = "sluice"
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

func TestDemoLeavesNothingHoweverItIsEnded(t *testing.T) {
	tests := []struct {
		name string
		end  func(cmd *exec.Cmd, stdout io.Closer)
	}{
		{"Ctrl-C", func(cmd *exec.Cmd, _ io.Closer) { cmd.Process.Signal(os.Interrupt) }},
		{"Ctrl-C that comes twice", func(cmd *exec.Cmd, _ io.Closer) {
			cmd.Process.Signal(os.Interrupt)
			cmd.Process.Signal(os.Interrupt)
		}},
		{"SIGTERM", func(cmd *exec.Cmd, _ io.Closer) { cmd.Process.Signal(syscall.SIGTERM) }},
		{"the terminal is closed", func(cmd *exec.Cmd, _ io.Closer) { cmd.Process.Signal(syscall.SIGHUP) }},
		{"the reader of the output goes", func(_ *exec.Cmd, stdout io.Closer) { stdout.Close() }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "demo") // shorter than the test's name: a socket's path has a limit
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			cmd := program(t, []string{"TMPDIR=" + dir}, "demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := stdout.Read(make([]byte, 1)); err != nil {
				t.Fatalf("no output: %v; %s", err, stderr.String())
			}
			test.end(cmd, stdout)
			io.Copy(io.Discard, stdout)
			if err := cmd.Wait(); err != nil || stderr.String() != "" {
				t.Errorf("ended with %v, stderr %q, want neither", err, stderr.String())
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// Three gateways, a split, a crash: nobody fails, and nothing is left behind.
func TestDemoOfThreeGatewaysFailsNobody(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "demo") // shorter than the test's name: a socket's path has a limit
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cmd := program(t, []string{"TMPDIR=" + dir}, "demo", "--nodes", "3", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--rate", "200")
	stdout, stderr := newOutput(), newOutput()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	for _, line := range []string{
		`> split changed at gateway-1: v1 50 %, v2 50 %. Obeyed by gateway-1 after \d+ ms, gateway-2 after \d+ ms, gateway-3 after \d+ ms.\n`,
		`> gateway-2 was killed \(kill -9 \d+\)`,
		`> gateway-1 has noticed that gateway-2 is gone, after [\d.]+ s`,
		`> gateway-3 has noticed that gateway-2 is gone, after [\d.]+ s`,
		`> gateway-2 is back: `,
		`> That was the story`,
	} {
		t.Log(strings.TrimSpace(stdout.await(t, line)[0]))
	}
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil || stderr.String() != "" {
		t.Errorf("ended with %v, stderr %q, want neither; stdout:\n%s", err, stderr, stdout)
	}
	stdout.await(t, `\n\d+ RPCs: \d+ by v1, \d+ by v2, 0 errors; \d+ were begun again at another gateway. Nothing is left behind.\n`)
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDemoRefusesTooManyGateways(t *testing.T) {
	for _, nodes := range []string{"0", "6", "-1"} {
		if _, stderr, code := invoke(t.Context(), "demo", "--nodes="+nodes); code != 2 || !strings.Contains(stderr, "want 1 to 5 gateways") {
			t.Errorf("--nodes %s: exit %d, stderr %q, want 2 and the limits", nodes, code, stderr)
		}
	}
}
