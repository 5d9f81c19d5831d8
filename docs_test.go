package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"sluice/store"
)

// Every block of a document is tried: resources and settings are parsed,
// commands are run by a shell, with this test as `sluice`. The word that
// follows the language says how:
//
//	yaml file=NAME      is written to NAME, for the commands after it
//	sh                  must exit 0
//	sh background       runs until the next such block or the end, and must then exit 0
//	sh not-run="WHY"    is not run
//	sh end              is not run: it ends what runs in the background
//	js page             is run in a browser by conformance/browser
//	... needs-tls       gets server.pem, server.key and ca.pem
//	... on=gw1          is for that one of several machines, on=all for gw1, gw2 and gw3
//	... as="COMMAND"    is what is run in place of the text, which needs systemd
//	... until="REGEXP"  is run again until the output has that: gossip takes a moment
//
// The well-known ports are replaced by free ones, and the service that the
// documents put the gateway in front of is the example of the demo.

// documents are the files that a user reads.
var documents = []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/getting-started.md", "docs/operations.md", "docs/protocols.md", "docs/resources.md", "docs/backends.md", "docs/cluster.md", "docs/partitions.md", "docs/cli.md", "docs/api.md", "docs/security.md", "docs/design.md"}

// block is one fenced block of a document.
type block struct {
	line     int
	language string
	file     string // of file=
	notRun   string // of not-run=
	on       string // of on=
	as       string // of as=
	until    string // of until=
	words    string // the rest of the first line
	text     string
}

var (
	fence     = regexp.MustCompile("(?ms)^```(\\S*)([^\n]*)\n(.*?)^```$")
	attribute = regexp.MustCompile(`(file|not-run|on|as|until)=(?:"([^"]*)"|(\S+))`)
)

func blocks(text string) []block {
	var found []block
	for _, m := range fence.FindAllStringSubmatchIndex(text, -1) {
		b := block{
			line:     1 + strings.Count(text[:m[0]], "\n"),
			language: text[m[2]:m[3]],
			text:     text[m[6]:m[7]],
		}
		words := text[m[4]:m[5]]
		for _, a := range attribute.FindAllStringSubmatch(words, -1) {
			*map[string]*string{"file": &b.file, "not-run": &b.notRun, "on": &b.on, "as": &b.as, "until": &b.until}[a[1]] = a[2] + a[3]
		}
		b.words = strings.TrimSpace(attribute.ReplaceAllString(words, ""))
		found = append(found, b)
	}
	return found
}

func TestDocumentsCanBeFollowed(t *testing.T) {
	tools := toolbox(t)
	for _, document := range documents {
		t.Run(document, func(t *testing.T) {
			text, err := os.ReadFile(document)
			if err != nil {
				t.Fatal(err)
			}
			m := newMachines(newReader(t, tools))
			for _, b := range blocks(string(text)) {
				for _, r := range m.of(b.on) {
					r.where = fmt.Sprintf("%s:%d", document, b.line)
					r.try(b)
				}
			}
			m.end()
		})
	}
}

// toolbox is a folder with the commands that documents use beside those of
// every machine: sluice, which is this test, and grpcurl.
func toolbox(t *testing.T) string {
	t.Helper()
	dir := named(t)
	build := exec.Command("go", "build", "-C", "tools", "-o", filepath.Join(dir, "grpcurl"),
		"github.com/fullstorydev/grpcurl/cmd/grpcurl")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build grpcurl: %v\n%s", err, out)
	}
	return dir
}

// reader follows one document, block by block, in a folder of its own.
type reader struct {
	t     *testing.T
	dir   string
	tools string
	ports *strings.Replacer
	env   []string
	where string // of the block in hand

	background *exec.Cmd
	log        *output
}

func newReader(t *testing.T, tools string) *reader {
	shop := startShop(t, "v1", "v2")
	listen, admin, dir := freePort(t), freePort(t), t.TempDir()
	return &reader{
		t: t, dir: dir, tools: tools,
		ports: strings.NewReplacer("127.0.0.1:50051", shop.Addr("v1"), "127.0.0.1:50052", shop.Addr("v2"),
			"8080", listen, "8081", admin),
		env: append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"), "SLUICE_CONFIG="+os.DevNull,
			"SLUICE_DATA_DIR="+filepath.Join(dir, "data"), "SLUICE_LISTEN=:"+listen, "SLUICE_ADMIN=127.0.0.1:"+admin),
	}
}

// freePort returns a port that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

func (r *reader) try(b block) {
	r.t.Helper()
	text := r.ports.Replace(b.text)
	switch b.language {
	case "yaml":
		r.yaml(b, text)
	case "ini":
		r.unit(text)
	case "sh":
		r.shell(b, text)
	case "js":
		if b.words != "page" {
			r.t.Errorf("%s: a block of js that is no page's", r.where)
		}
	case "text":
	default:
		r.t.Errorf("%s: a block of %q, which nobody tries; use yaml, ini, sh, js, or text for what is no example", r.where, b.language)
	}
}

// yaml parses resources, or else the settings of a node.
func (r *reader) yaml(b block, text string) {
	r.t.Helper()
	if strings.Contains(text, "apiVersion:") {
		if _, faults := store.Parse(r.where, []byte(text)); len(faults) > 0 {
			r.t.Error(faults)
		}
	} else if err := settings(r.where, []byte(text)); err != nil {
		r.t.Error(err)
	}
	if b.file == "" {
		return
	}
	name := r.ports.Replace(b.file)
	if !filepath.IsAbs(name) {
		name = filepath.Join(r.dir, name)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func settings(file string, text []byte) error {
	var cfg config
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	cfg.addFlags(flags)
	if err := fromFile(flags, file, text); err != nil {
		return err
	}
	return cfg.validate()
}

var execStart = regexp.MustCompile(`(?m)^ExecStart=\S*/sluice serve (.*)$`)

// unit parses the command line of a systemd unit.
func (r *reader) unit(text string) {
	r.t.Helper()
	start := execStart.FindStringSubmatch(text)
	if start == nil {
		r.t.Errorf("%s: no ExecStart of sluice serve", r.where)
		return
	}
	if err := serveCommand().ParseFlags(strings.Fields(start[1])); err != nil {
		r.t.Errorf("%s: %v", r.where, err)
	}
}

func (r *reader) shell(b block, text string) {
	r.t.Helper()
	if b.notRun != "" {
		return
	}
	if b.as != "" {
		text = b.as
	}
	if strings.Contains(b.words, "needs-tls") {
		writeCertificates(r.t, r.dir)
	}
	switch b.words {
	case "background", "background needs-tls":
		r.start(text)
	case "end":
		r.end()
	default:
		r.run(text, b.until)
	}
}

// run runs a text, again and again if until says for what output.
func (r *reader) run(text, until string) {
	r.t.Helper()
	wanted := regexp.MustCompile(until)
	for deadline := time.Now().Add(patience); ; <-time.After(watchInterval) {
		out, err := r.command(text).CombinedOutput()
		if err == nil && wanted.Match(out) {
			return
		}
		if until == "" || time.Now().After(deadline) {
			r.t.Errorf("%s: %v\n%s\n%s%s", r.where, err, text, out, r.serverLog())
			return
		}
	}
}

func (r *reader) command(text string) *exec.Cmd {
	cmd := exec.CommandContext(r.t.Context(), "bash", "-euo", "pipefail", "-c", text)
	cmd.Dir = r.dir
	cmd.Env = r.env
	return cmd
}

// start runs a server in the place of the one before it.
func (r *reader) start(text string) {
	r.t.Helper()
	r.end()
	r.log = newOutput()
	r.background = r.command("exec " + text)
	r.background.Stdout, r.background.Stderr = r.log, r.log
	if err := r.background.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.log.await(r.t, `msg=serving`)
}

// end stops the server, if there is one.
func (r *reader) end() {
	r.t.Helper()
	if r.background == nil {
		return
	}
	if err := r.background.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Error(err)
	}
	if err := r.background.Wait(); err != nil {
		r.t.Errorf("the server before %s ended with %v%s", r.where, err, r.serverLog())
	}
	r.background = nil
}

func (r *reader) serverLog() string {
	if r.log == nil {
		return ""
	}
	return "\nlog of the server:\n" + r.log.String()
}

// writeCertificates makes an authority and a certificate for this machine.
func writeCertificates(t *testing.T, dir string) {
	t.Helper()
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial),
			Subject:      pkix.Name{CommonName: name},
			NotBefore:    time.Now().Add(-time.Hour),
			NotAfter:     time.Now().Add(time.Hour),
		}
	}
	ca := template(1, "authority")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	server := template(2, "localhost")
	server.DNSNames, server.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}

	caKey, serverKey := newKey(t), newKey(t)
	writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", sign(t, ca, ca, &caKey.PublicKey, caKey))
	writePEM(t, filepath.Join(dir, "server.pem"), "CERTIFICATE", sign(t, server, ca, &serverKey.PublicKey, caKey))
	der, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "server.key"), "PRIVATE KEY", der)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, template, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBlocksReadsAttributes(t *testing.T) {
	text := "# Title\n\n```yaml file=a.yaml\na: 1\n```\n\n```sh not-run=\"needs root\"\nfalse\n```\n```sh background needs-tls\nx\n```\n"
	got := blocks(text)
	want := []block{
		{line: 3, language: "yaml", file: "a.yaml", text: "a: 1\n"},
		{line: 7, language: "sh", notRun: "needs root", text: "false\n"},
		{line: 10, language: "sh", words: "background needs-tls", text: "x\n"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestOperationsListsEverySetting(t *testing.T) {
	text, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var cfg config
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	cfg.addFlags(flags)
	declared := 0
	flags.VisitAll(func(f *pflag.Flag) {
		declared++
		row := fmt.Sprintf("| `--%s` | `%s` | `%s` | ", f.Name, envName(f.Name), f.Name)
		rest, found := bytes.CutPrefix(text[max(0, bytes.Index(text, []byte(row))):], []byte(row))
		if !found {
			t.Errorf("no row %q", row)
			return
		}
		want := "`" + f.DefValue + "`"
		switch {
		case f.Name == "data-dir": // depends on who asks
			return
		case f.DefValue == "" || f.DefValue == "[]":
			want = "none"
		}
		if got, _, _ := strings.Cut(string(rest), " |"); got != want {
			t.Errorf("default of %s is given as %s, want %s", f.Name, got, want)
		}
	})
	if rows := bytes.Count(text, []byte("\n| `--")); rows != declared {
		t.Errorf("%d rows for %d settings", rows, declared)
	}
}

// measured declares what has metrics of its own.
const measured = `apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: measured}
spec:
  dns: {name: localhost, port: 50051}
  limits: {adaptiveConcurrency: {}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: measured}
spec:
  hostnames: [measured.example.com]
  rules: [{backendRefs: [{group: sluice.dev, kind: Backend, name: measured}]}]
---
apiVersion: sluice.dev/v1alpha1
kind: RPCPolicy
metadata: {name: measured}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: measured}]
  rateLimits: [{requests: 1000, interval: 1s}]
`

func TestOperationsListsEveryMetric(t *testing.T) {
	text, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{} // name → kind
	for _, row := range regexp.MustCompile("(?m)^\\| `(sluice_\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = row[2]
	}
	shop := startShop(t, "v1")
	data := t.TempDir()
	s := startServer(t, "--resources", toShop(t, shop, "v1"), "--data-dir", data, "--gossip", "127.0.0.1:0")
	operate(t, data).apply(measured)
	s.who(t)
	_, page := s.get(t, "/metrics")
	shown := map[string]string{}
	for _, line := range regexp.MustCompile(`(?m)^# TYPE (sluice_\w+) (\w+)$`).FindAllStringSubmatch(page, -1) {
		shown[line[1]] = line[2]
	}
	if !maps.Equal(documented, shown) {
		t.Errorf("documented: %v\n     shown: %v", documented, shown)
	}
}
