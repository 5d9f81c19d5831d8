package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// translators are the programs that ours is measured beside in the rows of
// translated protocols. Each is built from a module of its own below peers, with
// versions that are pinned there, so that nothing of theirs is in ours.
var translators = []proxy{
	{name: "grpcwebproxy", optional: true, lone: true, source: grpcwebproxy, command: grpcwebproxyCommand},
	{name: "grpcgateway", optional: true, source: grpcgateway, command: grpcgatewayCommand},
}

// source is what a translator is built from.
type source struct {
	folder string // below bench/peers
	pkg    string
	module string // whose version is the translator's
}

var (
	grpcwebproxy = source{"grpcwebproxy", "github.com/improbable-eng/grpc-web/go/grpcwebproxy", "github.com/improbable-eng/grpc-web"}
	grpcgateway  = source{"grpcgateway", ".", "github.com/grpc-ecosystem/grpc-gateway/v2"}
)

// buildTimeout bounds the building of one translator, with what it downloads.
const buildTimeout = 10 * time.Minute

// buildTranslators builds those that a row asks for. One that cannot be built, away
// from the network say, is left out.
func (b *bench) buildTranslators(root string) {
	b.translators = slices.DeleteFunc(b.translators, func(p proxy) bool {
		if !b.opts.wantsAny(func(r row) bool { return r.translator == p.name }) {
			return true
		}
		b.say("building %s", p.name)
		binary := filepath.Join(b.dir, p.name+".bin")
		if err := p.source.build(b.ctx, root, binary); err != nil {
			b.leaveOut(p, err)
			return true
		}
		b.report.Versions[p.name] = p.source.version(binary)
		return false
	})
}

func (s source) build(ctx context.Context, root, binary string) error {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, s.pkg)
	cmd.Dir = filepath.Join(root, "bench", "peers", s.folder)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", s.pkg, err, said)
	}
	return nil
}

// version is the one that the binary says it was built with.
func (s source) version(binary string) string {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return ""
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == s.module {
			return m.Version
		}
	}
	return ""
}

// grpcwebproxyCommand: it knows one backend, and writes a line to its standard output
// for every RPC, which no flag turns off: it goes to where writing costs least.
func grpcwebproxyCommand(b *bench, s site) (command, error) {
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return command{}, err
	}
	return command{
		argv: []string{
			filepath.Join(b.dir, "grpcwebproxy.bin"), "--run_tls_server=false", "--allow_all_origins",
			"--server_bind_address=" + host, "--server_http_debug_port=" + port, "--backend_addr=" + s.backends[0],
		},
		env: oneCore, mute: true,
	}, nil
}

func grpcgatewayCommand(b *bench, s site) (command, error) {
	return command{
		argv: []string{
			filepath.Join(b.dir, "grpcgateway.bin"), "-listen", s.addr, "-backends", strings.Join(s.backends[:], ","),
		},
		env: oneCore,
	}, nil
}
