package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// announce runs `sluice backend register --keep` for a backend, as its process would.
func (g *gateway) announce(b *backend, lease time.Duration) *exec.Cmd {
	g.t.Helper()
	cmd := exec.Command(g.binary, "backend", "register", "test", b.address(),
		"--lease", lease.String(), "--keep", "--data-dir", filepath.Join(g.dir, "data"))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		_ = cmd.Process.Kill() // gone since is as good
		_ = cmd.Wait()
	})
	return cmd
}

func TestRegistrationsComeAndGo(t *testing.T) {
	longOnly(t)
	rate := fullRate(t)
	const lease = 2 * time.Second
	s := begin(t, "three processes register with leases of %v; one deregisters by SIGTERM, one is killed", lease)
	backends := startBackends(t, 4, "b")
	g := startGateway(t)
	g.apply(manifest(endpoints(backends[0]), "registration: {}", ""))
	r := load{rate: rate}.begin(t, g)
	wait(time.Second)
	began := r.now()
	joined := time.Duration(0)
	var keepers []*exec.Cmd
	for _, b := range backends[1:] {
		keepers = append(keepers, g.announce(b, lease))
	}
	for _, b := range backends[1:] {
		joined = max(joined, r.awaitRPC(b.name(), 0, patience)-began)
	}
	wait(3 * lease) // they are renewed

	_ = keepers[0].Process.Signal(syscall.SIGTERM)
	_, _ = keepers[0].Process.Wait()
	before := backends[1].report().Begun
	wait(time.Second)
	late := backends[1].report().Begun - before

	killed := r.now()
	_ = keepers[1].Process.Kill()
	_, _ = keepers[1].Process.Wait()
	wait(2*lease + time.Second)
	before = backends[2].report().Begun
	wait(time.Second)
	kept := backends[2].report().Begun - before
	all := r.stop()
	s.noneFailed(all)
	s.want(joined < 2*time.Second, "in use within 2 s", "in use after %s", ms(joined))
	s.want(late <= 1, "none after it deregistered", "%d RPCs after it deregistered", late)
	s.want(kept == 0, "none two leases after its keeper was killed", "%d RPCs two leases after the kill", kept)
	still := all.between(killed, r.now()).share("b4")
	s.want(still > 0.2, "the third stays", "the third has %s", percent(still))
}
