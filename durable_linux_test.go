package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	adminv1 "sluice/admin/v1"
	shopv1 "sluice/demo/shop/v1"
)

// process is a `sluice serve` in a process of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	log    *output
	listen string
}

// startProcess runs the command line of a shell and waits until the node in it serves.
func startProcess(t *testing.T, script string, args ...string) *process {
	t.Helper()
	p := &process{t: t, log: newOutput()}
	p.cmd = exec.CommandContext(t.Context(), "bash", append([]string{"-c", script, "bash"}, args...)...)
	p.cmd.Env = append(os.Environ(), "PATH="+named(t)+":"+os.Getenv("PATH"))
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.listen = p.log.await(t, `msg=serving listen=(\S+)`)[1]
	return p
}

func (p *process) end(sig syscall.Signal) {
	p.t.Helper()
	p.cmd.Process.Signal(sig)
	if err := p.cmd.Wait(); err != nil && sig != syscall.SIGKILL {
		p.t.Errorf("the node ended with %v:\n%s", err, p.log)
	}
}

const serveHere = `exec sluice serve --config /dev/null --data-dir "$1" --listen 127.0.0.1:0 --admin 127.0.0.1:0 --grace 1s`

// The process is killed again and again in the midst of writing. Each time, what was
// acknowledged is there, and the gateway serves by it.
func TestServeLosesNothingThatItAcknowledged(t *testing.T) {
	shop := startShop(t, "v1", "v2")
	data := t.TempDir()
	acknowledged := -1
	for round := range asked("SLUICE_NODE_KILLS", 10) {
		p := startProcess(t, serveHere, data)
		o := operate(t, data)
		if round == 0 {
			o.apply(canary(shop))
		} else if got := o.label(); got < acknowledged || got > acknowledged+1 {
			t.Fatalf("round %d: found change %d, acknowledged were %d", round, got, acknowledged)
		}
		if got := askWho(t, p.listen); got != "v1" {
			t.Errorf("round %d: served by %s, want v1", round, got)
		}
		time.AfterFunc(time.Duration(20+13*(round%20))*time.Millisecond, func() { p.cmd.Process.Kill() })
		for {
			if _, err := o.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: labelled(acknowledged + 1)})); err != nil {
				break
			}
			acknowledged++
		}
		p.cmd.Wait()
	}
	t.Logf("%d changes were acknowledged", acknowledged+1)
	if acknowledged < 10 {
		t.Errorf("%d changes were acknowledged, want some in each round", acknowledged+1)
	}
}

// labelled declares a backend that nobody uses, with a number.
func labelled(n int) string {
	return fmt.Sprintf(`apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: numbered, labels: {number: "%d"}}
spec: {endpoints: []}
`, n)
}

// label is the number of the backend that nobody uses, -1 when it is not there.
func (o *operator) label() int {
	o.t.Helper()
	reply, err := o.resources.Get(o.t.Context(), connect.NewRequest(&adminv1.GetRequest{Ref: &adminv1.Ref{Kind: "Backend", Name: "numbered"}}))
	if connect.CodeOf(err) == connect.CodeNotFound {
		return -1
	}
	if err != nil {
		o.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(reply.Msg.GetObject().GetManifest(), `"number":"`)
	n := -1
	fmt.Sscanf(rest, "%d", &n)
	return n
}

// askWho returns the version that answers at a gateway's port.
func askWho(t *testing.T, addr string) string {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reply, err := shopv1.NewCartClient(conn).Get(t.Context(), &shopv1.GetRequest{Id: "1"})
	if err != nil {
		t.Fatalf("get a cart: %v", err)
	}
	return reply.GetServedBy()
}

// A full disk is an error to who writes, and to nobody else; with space, writing works again.
func TestServeSurvivesAFullDisk(t *testing.T) {
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mount a small file system: %v", err)
	}
	shop := startShop(t, "v1", "v2")
	p := startProcess(t, serveHere, mount)
	t.Cleanup(func() { syscall.Unmount(mount, syscall.MNT_DETACH) })
	defer func() { p.end(syscall.SIGTERM) }()
	o := operate(t, mount)
	o.apply(canary(shop))

	filler := filepath.Join(mount, "filler")
	fill(t, filler)
	refused := 0
	for i := range 200 {
		_, err := o.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: labelled(i)}))
		if err == nil {
			continue // there was a page to spare
		}
		refused++
		if connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "space") {
			t.Fatalf("refused with %v, want RESOURCE_EXHAUSTED and the reason", err)
		}
	}
	if refused == 0 {
		t.Error("no write was refused on a full disk")
	}
	if got := askWho(t, p.listen); got != "v1" {
		t.Errorf("served by %s while the disk was full, want v1", got)
	}
	p.end(syscall.SIGTERM)
	p = startProcess(t, serveHere, mount)
	if got := askWho(t, p.listen); got != "v1" {
		t.Errorf("served by %s after a start on a full disk, want v1", got)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	o.apply(labelled(1000))
	if got := o.label(); got != 1000 {
		t.Errorf("change %d is there once there is space, want 1000", got)
	}
}

// fill writes until there is no space.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

// A damaged store is put aside, and the node serves by its last good copy and says so.
func TestServeSurvivesADamagedStore(t *testing.T) {
	shop := startShop(t, "v1", "v2")
	data := t.TempDir()
	s := startServer(t, "--data-dir", data)
	operate(t, data).apply(canary(shop))
	s.end(t)

	file := filepath.Join(data, "sluice.db")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 8 << 10; i < len(text); i++ { // behind the two meta pages
		text[i] ^= 0x5a
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, "--data-dir", data)
	if got := s.who(t); got != "v1" {
		t.Errorf("served by %s, want v1", got)
	}
	s.log.await(t, "damaged")
	aside, err := filepath.Glob(file + ".damaged-*")
	if err != nil || len(aside) != 1 {
		t.Errorf("put aside: %v, error %v, want one file", aside, err)
	}
	status, err := operate(t, data).node.Status(t.Context(), connect.NewRequest(&adminv1.StatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(status.Msg.GetProblems(), "\n"), "damaged") {
		t.Errorf("the status has the problems %q, want the damage among them", status.Msg.GetProblems())
	}
}
