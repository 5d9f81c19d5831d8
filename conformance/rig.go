package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
)

type rigOptions struct {
	sluice  string // empty builds it
	direct  bool
	soak    int
	verbose bool
	skips   allowances
}

// rig is what the suites share: programs, certificates, a folder that goes away.
type rig struct {
	opts  rigOptions
	dir   string
	certs *certs
	// log takes what the suites' libraries and the programs print.
	log io.Writer
}

// newRig also takes os.Stdout away from the suites that are libraries: they
// print as they run, and the standard output belongs to the report.
func newRig(opts rigOptions) (*rig, error) {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return nil, err
	}
	r := &rig{opts: opts, dir: dir, log: io.Discard}
	if r.certs, err = newCerts(dir); err != nil {
		return nil, err
	}
	if opts.verbose {
		r.log, os.Stdout = os.Stderr, os.Stderr
		return r, nil
	}
	log.SetOutput(io.Discard) // net/http's complaints of what h2spec sends it
	if os.Stdout, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	return r, nil
}

func (r *rig) close() { os.RemoveAll(r.dir) }

// tools are the suites that are programs; go.mod pins them.
var tools = map[string]string{
	"connectconformance": "connectrpc.com/conformance/cmd/connectconformance",
	"grpcserver":         "connectrpc.com/conformance/cmd/grpcserver",
	"referenceserver":    "connectrpc.com/conformance/cmd/referenceserver",
	"interop-client":     "google.golang.org/grpc/interop/client",
	"interop-server":     "google.golang.org/grpc/interop/server",
	"negative-client":    "google.golang.org/grpc/interop/http2",
}

func (r *rig) tool(name string) string { return filepath.Join(r.dir, name) }

// build builds the gateway, static as it is shipped, and what the suites need.
func (r *rig) build(ctx context.Context, chosen []suite) error {
	if r.opts.sluice == "" && !r.opts.direct {
		r.opts.sluice = filepath.Join(r.dir, "sluice")
		if err := goBuild(ctx, "..", r.opts.sluice, ".", "CGO_ENABLED=0"); err != nil {
			return err
		}
	}
	if path, err := filepath.Abs(r.opts.sluice); err == nil && r.opts.sluice != "" {
		r.opts.sluice = path // the shim is started elsewhere
	}
	var built []string
	for _, s := range chosen {
		for _, name := range s.needs {
			if slices.Contains(built, name) {
				continue
			}
			if err := goBuild(ctx, ".", r.tool(name), tools[name]); err != nil {
				return err
			}
			built = append(built, name)
		}
	}
	return nil
}

func goBuild(ctx context.Context, dir, out, pkg string, env ...string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// tailSize is how much of a program's output a failure shows.
const tailSize = 4 << 10

// tail keeps the end of what a program prints, and passes all of it on.
type tail struct {
	next io.Writer

	mu  sync.Mutex // guards end
	end []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.end = append(t.end, p...)
	if extra := len(t.end) - tailSize; extra > 0 {
		t.end = append(t.end[:0], t.end[extra:]...)
	}
	t.mu.Unlock()
	return t.next.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.end)
}
