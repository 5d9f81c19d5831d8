package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// document is what a user reads about pages: its scripts are run in the browser as they
// stand there, with its own routes, in front of the example service.
const document = "../docs/protocols.md"

// documentCases is how many scripts it has.
const documentCases = 2

var (
	pageScript  = regexp.MustCompile("(?ms)^```js page\n(.*?)^```$")
	pageRoutes  = regexp.MustCompile("(?ms)^```yaml file=shop.yaml\n(.*?)^```$")
	demoBackend = regexp.MustCompile(`(?m)^  v1 +(127\.0\.0\.1:\d+),`)
)

// runDocuments runs the scripts of the document. Each prints the cart that it got.
func runDocuments(ctx context.Context, r *rig, _ suite) (tally, error) {
	var t tally
	if r.opts.direct {
		return t, errors.New("no browser speaks to the backend without a gateway")
	}
	text, err := os.ReadFile(document)
	if err != nil {
		return t, err
	}
	routes := pageRoutes.FindSubmatch(text)
	if routes == nil {
		return t, fmt.Errorf("%s has no shop.yaml", document)
	}
	shop, stop, err := startShop(ctx, r)
	if err != nil {
		return t, err
	}
	defer stop()
	dir := filepath.Join(r.dir, "documents")
	pages, closePages, err := servePage(dir)
	if err != nil {
		return t, err
	}
	defer closePages()
	origin := "http://localhost:" + port(pages)
	local := strings.NewReplacer("127.0.0.1:50051", shop, "http://localhost:3000", origin)
	gw, err := startGateway(ctx, gatewayConfig{sluice: r.opts.sluice, resources: local.Replace(string(routes[1])), log: r.log})
	if err != nil {
		return t, err
	}
	defer gw.stop()
	if err := bundlePage(ctx, filepath.Join(r.dir, "page")); err != nil { // installs what the scripts import
		return t, err
	}
	for i, script := range pageScript.FindAllSubmatch(text, -1) {
		id := fmt.Sprintf("script %d", i+1)
		code := strings.ReplaceAll(string(script[1]), "http://localhost:8080", "http://localhost:"+port(gw.listen))
		got, err := r.runScript(ctx, dir, fmt.Sprintf("script%d", i+1), origin, code)
		switch {
		case err != nil:
			t.fail(id, err.Error())
		case got != "42 v1":
			t.fail(id, fmt.Sprintf("the page printed %q, want %q", got, "42 v1"))
		default:
			t.passed++
		}
	}
	return t, nil
}

// runScript bundles a script, opens it in the browser and returns the first line that it
// prints.
func (r *rig) runScript(ctx context.Context, dir, name, origin, code string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	// Beside the libraries, so that they are found.
	source, err := os.CreateTemp(browserDir, ".script-*.mjs")
	if err != nil {
		return "", err
	}
	defer os.Remove(source.Name())
	if _, err := source.WriteString(strings.ReplaceAll(code, "./shop_pb.js", "./stubs/shop/v1/shop_pb.js")); err != nil {
		return "", err
	}
	if err := source.Close(); err != nil {
		return "", err
	}
	if err := inBrowserDir(ctx, "node", "driver.mjs", "script", filepath.Base(source.Name()), filepath.Join(dir, name)); err != nil {
		return "", err
	}
	browser, err := exec.LookPath(browserProgram)
	if err != nil {
		return "", fmt.Errorf("find the browser: %w; scripts/needs.sh conformance installs it", err)
	}
	ctx, cancel := context.WithTimeout(ctx, browserLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "driver.mjs", "open", browser, origin+"/"+name+".html")
	cmd.Dir = browserDir
	said := &tail{next: r.log}
	cmd.Stderr = said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("open the page: %w\n%s", err, said)
	}
	return strings.TrimSpace(string(out)), nil
}

// startShop runs the example service, and returns where its first version is.
func startShop(ctx context.Context, r *rig) (addr string, stop func(), err error) {
	cmd := exec.CommandContext(ctx, r.opts.sluice, "demo", "--rate", "0", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	cmd.Stderr = r.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("start the example service: %w", err)
	}
	stop = func() {
		cmd.Process.Signal(syscall.SIGINT)
		cmd.Wait()
	}
	lines := bufio.NewScanner(out)
	late := time.AfterFunc(startTimeout, func() { cmd.Process.Kill() })
	defer late.Stop()
	for lines.Scan() {
		if m := demoBackend.FindStringSubmatch(lines.Text()); m != nil {
			if _, _, err := net.SplitHostPort(m[1]); err != nil {
				break
			}
			go func() {
				for lines.Scan() {
				}
			}()
			return m[1], stop, nil
		}
	}
	stop()
	return "", nil, errors.New("the example service does not say where it is")
}
