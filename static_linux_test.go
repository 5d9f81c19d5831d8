package main

import (
	"debug/elf"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// buildStatic builds the program as `make build` does.
func buildStatic(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "sluice")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return file
}

// alone makes cmd run with dir as its root. Who is not root needs a user
// namespace for that.
func alone(cmd *exec.Cmd, dir string) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
	cmd.Dir = "/"
	cmd.Env = []string{}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	}
}

func TestBinaryRunsAloneInAnEmptyRoot(t *testing.T) {
	dir := t.TempDir()
	file := buildStatic(t, dir)

	binary, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	for _, part := range binary.Progs {
		if part.Type == elf.PT_INTERP {
			t.Error("the binary asks for a dynamic loader")
		}
	}

	if err := os.WriteFile(filepath.Join(dir, "routes.yaml"), []byte(manifest("a")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		want string
	}{
		{"version", "sluice devel (go"},
		{"validate -f routes.yaml", "ok: 1 route, 1 backend\n"},
	} {
		cmd := exec.CommandContext(t.Context(), "/sluice", strings.Fields(test.args)...)
		alone(cmd, dir)
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) && os.Geteuid() != 0 {
			t.Log("no user namespaces for this user; only the headers of the binary were looked at")
			return
		}
		if err != nil || !strings.HasPrefix(string(out), test.want) {
			t.Errorf("sluice %s: %v, output %q, want %q", test.args, err, out, test.want)
		}
	}
	serveAlone(t, dir)
}

// serveAlone runs a server in dir, asks whether it is ready, and ends it.
func serveAlone(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/sluice", "serve", "--data-dir", "/data", "--resources", "/routes.yaml",
		"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	alone(cmd, dir)
	log := newOutput()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	admin := log.await(t, `msg=serving listen=\S+ admin=(\S+)`)[1]
	reply, err := http.Get("http://" + admin + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		t.Errorf("readyz: %d, want 200", reply.StatusCode)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("serve ended with %v:\n%s", err, log)
	}
}
