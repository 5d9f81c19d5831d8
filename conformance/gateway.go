package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Switches by which a test makes the gateway treat every HTTP/2 request alike.
const (
	switchRelay   = "SLUICE_TEST_RELAY_ALL=1"
	switchHandler = "SLUICE_TEST_HANDLER=1"
)

// startTimeout and stopTimeout are generous: a busy machine is not a failure.
const (
	startTimeout = 15 * time.Second
	stopTimeout  = 15 * time.Second
)

// gatewayConfig is one start of the gateway.
type gatewayConfig struct {
	sluice    string
	resources string // YAML
	cert, key string // files; empty means no TLS
	clientCA  string // file; empty asks for no client certificate
	env       []string
	log       io.Writer
}

// gateway is a running process.
type gateway struct {
	listen, admin string
	dir           string
	cmd           *exec.Cmd
	out           *tail
	done          chan struct{} // closed when the process has ended
	err           error         // how it ended; read after done
}

// startGateway returns when the gateway says that it is ready.
func startGateway(ctx context.Context, c gatewayConfig) (*gateway, error) {
	dir, err := os.MkdirTemp("", "conformance-gateway-")
	if err != nil {
		return nil, err
	}
	g := &gateway{dir: dir, out: &tail{next: c.log}, done: make(chan struct{})}
	file := filepath.Join(dir, "resources.yaml")
	if err := os.WriteFile(file, []byte(c.resources), 0o600); err != nil {
		return nil, err
	}
	if g.listen, err = freeAddr(); err != nil {
		return nil, err
	}
	if g.admin, err = freeAddr(); err != nil {
		return nil, err
	}
	g.cmd = exec.Command(c.sluice, g.args(c, file)...)
	g.cmd.Env = append(os.Environ(), c.env...)
	g.cmd.Stdout, g.cmd.Stderr = g.out, g.out
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start gateway: %w", err)
	}
	go func() {
		g.err = g.cmd.Wait()
		close(g.done)
	}()
	if err := g.await(ctx); err != nil {
		g.stop()
		return nil, fmt.Errorf("%w\n%s", err, g.out)
	}
	return g, nil
}

func (g *gateway) args(c gatewayConfig, resources string) []string {
	args := []string{
		"serve", "--data-dir", filepath.Join(g.dir, "data"), "--listen", g.listen, "--admin", g.admin,
		"--resources", resources, "--grace", "1s",
	}
	if c.cert != "" {
		args = append(args, "--tls-cert", c.cert, "--tls-key", c.key)
	}
	if c.clientCA != "" {
		args = append(args, "--tls-client-ca", c.clientCA)
	}
	return args
}

// await polls, since readiness is the gateway's to say and not ours to guess.
func (g *gateway) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if _, err := g.get(ctx, "/readyz"); err == nil {
			return nil
		}
		select {
		case <-g.done:
			return fmt.Errorf("gateway ended before it was ready: %v", g.err)
		case <-ctx.Done():
			return fmt.Errorf("gateway not ready after %s", startTimeout)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (g *gateway) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.admin+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: status %d", path, resp.StatusCode)
	}
	return io.ReadAll(resp.Body)
}

// stop asks the gateway to drain and reports a process that would not, or that
// ended badly.
func (g *gateway) stop() error {
	defer os.RemoveAll(g.dir)
	g.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.done:
	case <-time.After(stopTimeout):
		g.cmd.Process.Kill()
		<-g.done
		return fmt.Errorf("gateway still running %s after SIGTERM\n%s", stopTimeout, g.out)
	}
	if g.err != nil {
		return fmt.Errorf("gateway ended: %w\n%s", g.err, g.out)
	}
	return nil
}

// paths says how many RPCs the gateway relayed and how many it handed to its
// HTTP handler, or an error when it does not count them.
type paths struct{ Relay, Handler float64 }

func (g *gateway) paths(ctx context.Context) (paths, error) {
	text, err := g.get(ctx, "/metrics")
	if err != nil {
		return paths{}, fmt.Errorf("read gateway's metrics: %w", err)
	}
	return parsePaths(text)
}

var pathSample = regexp.MustCompile(`^sluice_rpc_path_total\{[^}]*path="(\w+)"[^}]*\} (\S+)$`)

func parsePaths(text []byte) (paths, error) {
	var p paths
	seen := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		m := pathSample.FindStringSubmatch(strings.TrimSpace(lines.Text()))
		if m == nil {
			continue
		}
		n, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return p, fmt.Errorf("read gateway's metrics: %w", err)
		}
		seen[m[1]] = true
		switch m[1] {
		case "relay":
			p.Relay += n
		case "handler":
			p.Handler += n
		}
	}
	if !seen["relay"] || !seen["handler"] {
		return p, errors.New("gateway's metrics have no sluice_rpc_path_total for relay and handler")
	}
	return p, lines.Err()
}

// check refuses a run in which an RPC went another way than it should have.
func (p paths) check(seam bool) error {
	want, other, name := p.Relay, p.Handler, "relay"
	if seam {
		want, other, name = p.Handler, p.Relay, "handler"
	}
	if want == 0 || other != 0 {
		return fmt.Errorf("RPCs relayed %g, handled %g; all should have taken the %s", p.Relay, p.Handler, name)
	}
	return nil
}

// freeAddr returns a loopback address that nobody listens on. Somebody else
// may take it before the gateway does; then the gateway says so and the run fails.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// backend is one Backend that takes every RPC of one service, or of all.
type backend struct {
	name    string
	address string
	service string // empty means every service
	ca      string // file; empty means h2c
}

// resources writes the route and the Backend for each.
func resources(backends ...backend) string {
	var y strings.Builder
	for _, b := range backends {
		fmt.Fprintf(&y, "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: %s}\nspec:\n  rules:\n  -", b.name)
		if b.service != "" {
			fmt.Fprintf(&y, " matches: [{method: {service: %s}}]\n   ", b.service)
		}
		fmt.Fprintf(&y, " backendRefs: [{group: sluice.dev, kind: Backend, name: %s}]\n---\n", b.name)
		fmt.Fprintf(&y, "apiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: %s}\nspec:\n  endpoints: [{address: %q}]\n", b.name, b.address)
		if b.ca == "" {
			y.WriteString("  protocol: h2c\n---\n")
			continue
		}
		fmt.Fprintf(&y, "  protocol: tls\n  tls: {caFile: %s, serverName: localhost}\n---\n", b.ca)
	}
	return strings.TrimSuffix(y.String(), "---\n")
}
