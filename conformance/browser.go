package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// browserCases is how many cases the page has.
const browserCases = 131

// The folder of the page, and what is run there. Debian names the browser chromium.
const (
	browserDir     = "browser"
	browserProgram = "chromium"
	browserLimit   = 2 * time.Minute
)

// Names of routes: one lets the page in, one says nothing of other origins, and one of
// the page itself. The browser finds all of them on this machine.
const (
	openHost   = "open.test"
	closedHost = "closed.test"
	pageHost   = "page.test"
)

// runBrowser puts the gateway between pages in a browser, which use the clients that
// others wrote, and a backend that speaks gRPC only. In clear the browser speaks
// HTTP/1.1, with TLS HTTP/2.
func runBrowser(ctx context.Context, r *rig, s suite) (tally, error) {
	var t tally
	if r.opts.direct {
		return t, errors.New("no browser speaks to the backend without a gateway")
	}
	bundle := filepath.Join(r.dir, "page")
	if err := bundlePage(ctx, bundle); err != nil {
		return t, err
	}
	backend, err := startProbe()
	if err != nil {
		return t, err
	}
	defer backend.stop()
	pages, stop, err := servePage(bundle)
	if err != nil {
		return t, err
	}
	defer stop()
	gone, err := freeAddr()
	if err != nil {
		return t, err
	}
	origin := "http://" + net.JoinHostPort(pageHost, port(pages))
	c := gatewayConfig{sluice: r.opts.sluice, resources: browserResources(backend.addr, gone, origin), log: r.log}
	scheme := "http://"
	if s.secure {
		c.cert, c.key, scheme = r.certs.cert, r.certs.key, "https://"
	}
	gw, err := startGateway(ctx, c)
	if err != nil {
		return t, err
	}
	err = drive(ctx, r, &t, map[string]string{
		"page":   origin,
		"open":   scheme + net.JoinHostPort(openHost, port(gw.listen)),
		"closed": scheme + net.JoinHostPort(closedHost, port(gw.listen)),
	})
	if err == nil {
		err = checkTransport(ctx, gw, s.secure)
	}
	if stopped := gw.stop(); stopped != nil {
		t.fail("stop", stopped.Error())
	}
	return t, err
}

// checkTransport sees by the gateway's metrics that the browser spoke what it should
// have: gRPC-Web is relayed when it comes by HTTP/2, and handled by HTTP/1.1.
func checkTransport(ctx context.Context, gw *gateway, secure bool) error {
	p, err := gw.paths(ctx)
	if err != nil {
		return err
	}
	if p.Handler == 0 || secure != (p.Relay > 0) {
		return fmt.Errorf("RPCs relayed %g, handled %g: not what the browser's transport leads to", p.Relay, p.Handler)
	}
	return nil
}

func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// browserResources has the same backend behind two routes, of which one has a policy
// for the page, and there a service whose backend is not up.
func browserResources(probe, gone, origin string) string {
	const route = `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: %[1]s}
spec:
  hostnames: [%[1]s.test]
  rules:
  - matches: [{method: {service: dead.v1.Dead}}]
    backendRefs: [{group: sluice.dev, kind: Backend, name: dead}]
  - backendRefs: [{group: sluice.dev, kind: Backend, name: probe}]
---
`
	const backend = `apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: %s}
spec:
  endpoints: [{address: %q}]
  protocol: h2c
---
`
	return fmt.Sprintf(route, "open") + fmt.Sprintf(route, "closed") + fmt.Sprintf(backend, "probe", probe) + fmt.Sprintf(backend, "dead", gone) +
		fmt.Sprintf(`apiVersion: sluice.dev/v1alpha1
kind: RPCPolicy
metadata: {name: open}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: open}]
  cors: {allowOrigins: [%q]}
`, origin)
}

// bundlePage installs what package-lock.json names, if it is not there, and makes one
// script of the page.
func bundlePage(ctx context.Context, out string) error {
	if err := os.MkdirAll(out, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(out, "page.js")); err == nil {
		return nil // of the run before, over the other transport
	}
	if stale(filepath.Join(browserDir, "node_modules", ".package-lock.json"), filepath.Join(browserDir, "package-lock.json")) {
		if err := inBrowserDir(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
			return err
		}
	}
	const html = "<!doctype html><meta charset=utf-8><title>Probe</title><script src=page.js></script>\n"
	if err := os.WriteFile(filepath.Join(out, "index.html"), []byte(html), 0o600); err != nil {
		return err
	}
	set, err := probeDescriptors()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "descriptors.bin"), set, 0o600); err != nil {
		return err
	}
	return inBrowserDir(ctx, "node", "driver.mjs", "bundle", out)
}

// stale tells that what was made is missing, or older than what it was made of.
func stale(made, source string) bool {
	a, err := os.Stat(made)
	if err != nil {
		return true
	}
	b, err := os.Stat(source)
	return err != nil || a.ModTime().Before(b.ModTime())
}

func inBrowserDir(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = browserDir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s %s: %w\n%s", name, args[0], err, text)
	}
	return nil
}

// servePage serves the page from an origin that is not the gateway's.
func servePage(dir string) (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(l)
	return l.Addr().String(), func() { server.Close() }, nil
}

// drive runs the page in the browser, and counts its cases.
func drive(ctx context.Context, r *rig, t *tally, config map[string]string) error {
	browser, err := exec.LookPath(browserProgram)
	if err != nil {
		return fmt.Errorf("find the browser: %w; scripts/needs.sh conformance installs it", err)
	}
	asked, err := json.Marshal(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, browserLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "driver.mjs", "run", browser, string(asked))
	cmd.Dir = browserDir
	said := &tail{next: r.log}
	cmd.Stderr = said
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("run the page: %w\n%s", err, said)
	}
	var results []struct{ ID, Failure string }
	if err := json.Unmarshal(out, &results); err != nil {
		return fmt.Errorf("read the page's results %.200q: %w", out, err)
	}
	for _, result := range results {
		if result.Failure == "" {
			t.passed++
			continue
		}
		t.fail(result.ID, result.Failure)
	}
	return nil
}
