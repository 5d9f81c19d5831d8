package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	adminv1 "sluice/admin/v1"
	"sluice/demo"
	shopv1 "sluice/demo/shop/v1"
)

const (
	// demoPause is between two events of the story: time to see what came of the last.
	demoPause = 2 * time.Second
	// demoProbe is between two RPCs that ask whether a gateway obeys already, demoLook
	// between two looks at what it says of the others.
	demoProbe = time.Millisecond
	demoLook  = 10 * time.Millisecond
	// demoNotice bounds how long gateways may take to notice anything.
	demoNotice = 30 * time.Second
)

// introduce says what is running where, and what to try.
func (d *clusterDemo) introduce() error {
	text := fmt.Sprintf("Sluice demo: one gRPC service in two versions behind %d gateways that know each other.\n\n", len(d.gateways))
	for _, g := range d.gateways {
		text += fmt.Sprintf("  %s   %-21s metrics http://%s/metrics   process %d\n", g.name, g.listen, g.admin, g.cmd.Process.Pid)
	}
	for i, version := range demoVersions {
		text += fmt.Sprintf("  %-11s %s, %d %% of the RPCs\n", version, d.backends.Addr(version), 100-100*i)
	}
	text += fmt.Sprintf(`
A client calls through all of them in turn. Try in another terminal, at any gateway:

  export SLUICE_DATA_DIR=%s
  sluice members
  sluice split cart cart-v1=80 cart-v2=20
  sluice history route cart

`, d.gateways[len(d.gateways)-1].dir)
	_, err := io.WriteString(d.out, text)
	return err
}

// narrate writes one line per second until ctx is done: how many RPCs came back through
// each gateway in that second, and what versions answered them.
func (d *clusterDemo) narrate(ctx context.Context) error {
	head := fmt.Sprintf("%6s", "time")
	for _, g := range d.gateways {
		head += fmt.Sprintf(" %10s", g.name)
	}
	if _, err := fmt.Fprintf(d.out, "%s %8s %8s %7s %9s\n", head, "v1", "v2", "errors", "p99"); err != nil {
		return err
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	before := demo.Totals{}
	for second := 1; ; second++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := d.load.Totals()
		line := fmt.Sprintf("%5ds", second)
		for _, g := range d.gateways {
			line += fmt.Sprintf(" %10d", now.ByGateway[g.address()]-before.ByGateway[g.address()])
		}
		for _, version := range demoVersions {
			line += fmt.Sprintf(" %8s", share(since(before, now), version))
		}
		if _, err := fmt.Fprintf(d.out, "%s %7d %9s\n", line, now.Errors, now.P99.Round(10*time.Microsecond)); err != nil {
			return err
		}
		before = now
	}
}

// since is what versions answered between two looks.
func since(before, now demo.Totals) demo.Totals {
	t := demo.Totals{RPCs: now.RPCs - before.RPCs, ByVersion: map[string]uint64{}}
	for version, n := range now.ByVersion {
		t.ByVersion[version] = n - before.ByVersion[version]
	}
	return t
}

// tell changes a split at one gateway, kills another and brings it back, and says what
// the others make of it.
func (d *clusterDemo) tell(ctx context.Context) error {
	victim := d.gateways[1]
	for _, event := range []func(context.Context) error{
		d.changeSplit,
		func(ctx context.Context) error { return d.killOne(ctx, victim) },
		func(ctx context.Context) error { return d.bringBack(ctx, victim) },
	} {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(demoPause):
		}
		if err := event(ctx); err != nil {
			return err
		}
	}
	if d.opts.duration > 0 {
		return d.say("That was the story. The rest of the time is for you.")
	}
	return d.say("That was the story. Ctrl-C ends the demo and removes what it made.")
}

// say writes a line of the story.
func (d *clusterDemo) say(format string, args ...any) error {
	_, err := fmt.Fprintf(d.out, "  > "+format+"\n", args...)
	return err
}

// changeSplit changes the split at the first gateway, and says when each obeyed: when an
// RPC through it was answered by v2 for the first time.
func (d *clusterDemo) changeSplit(ctx context.Context) error {
	g, probing := errgroup.WithContext(ctx)
	obeyed := make([]time.Duration, len(d.gateways))
	begin := time.Now()
	for i, gateway := range d.gateways {
		g.Go(func() error {
			err := gateway.awaitVersion(probing, "v2")
			obeyed[i] = time.Since(begin)
			return err
		})
	}
	_, err := d.gateways[0].resources.Split(ctx, connect.NewRequest(&adminv1.SplitRequest{
		Route: &adminv1.Ref{Kind: "GRPCRoute", Name: "cart"}, Reason: "the demo tries v2",
		Shares: []*adminv1.Share{{Backend: "cart-v1", Weight: 50}, {Backend: "cart-v2", Weight: 50}},
	}))
	if err != nil {
		return fmt.Errorf("change the split at %s: %w", d.gateways[0].name, err)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	var when []string
	for i, gateway := range d.gateways {
		when = append(when, fmt.Sprintf("%s after %d ms", gateway.name, obeyed[i].Milliseconds()))
	}
	return d.say("split changed at %s: v1 50 %%, v2 50 %%. Obeyed by %s.", d.gateways[0].name, strings.Join(when, ", "))
}

// awaitVersion calls through the gateway until that version answers.
func (g *demoGateway) awaitVersion(ctx context.Context, version string) error {
	ctx, cancel := context.WithTimeout(ctx, demoNotice)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+g.address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		reply, err := shopv1.NewCartClient(conn).Get(ctx, &shopv1.GetRequest{Id: "1"})
		if err != nil {
			return fmt.Errorf("wait for an RPC through %s to be answered by %s: %w", g.name, version, err)
		}
		if reply.GetServedBy() == version {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(demoProbe):
		}
	}
}

// killOne kills a gateway, and says when the others knew.
func (d *clusterDemo) killOne(ctx context.Context, victim *demoGateway) error {
	pid := victim.cmd.Process.Pid
	begin := time.Now()
	victim.kill()
	if err := d.say("%s was killed (kill -9 %d): no goodbye. The client goes on at the others.", victim.name, pid); err != nil {
		return err
	}
	g, looking := errgroup.WithContext(ctx)
	for _, gateway := range d.gateways {
		if gateway == victim {
			continue
		}
		g.Go(func() error {
			if err := gateway.awaitMembers(looking, func(members []*adminv1.Member) bool {
				return slices.ContainsFunc(members, func(m *adminv1.Member) bool {
					return m.GetListen() == victim.listen && m.GetState() == adminv1.Member_STATE_DEAD
				})
			}); err != nil {
				return err
			}
			return d.say("%s has noticed that %s is gone, after %.1f s.", gateway.name, victim.name, time.Since(begin).Seconds())
		})
	}
	return g.Wait()
}

// bringBack starts a gateway anew, which finds the others by what it remembers.
func (d *clusterDemo) bringBack(ctx context.Context, victim *demoGateway) error {
	begin := time.Now()
	if err := victim.start(ctx); err != nil {
		return err
	}
	ready := time.Since(begin)
	if err := d.awaitAgreement(ctx); err != nil {
		return err
	}
	return d.say("%s is back: it served what it knew after %d ms, and was in step after %.1f s. It remembered the others; nothing told it to join.",
		victim.name, ready.Milliseconds(), time.Since(begin).Seconds())
}

// awaitAgreement waits until every gateway has the same objects and sees all of them alive.
func (d *clusterDemo) awaitAgreement(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoNotice)
	defer cancel()
	for {
		agreed, err := d.agree(ctx)
		if agreed {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the gateways to have the same: %w", errors.Join(ctx.Err(), err))
		case <-time.After(demoLook):
		}
	}
}

// agree tells whether every gateway has the same objects, and sees all of them alive.
func (d *clusterDemo) agree(ctx context.Context) (bool, error) {
	var digest string
	for i, gateway := range d.gateways {
		members, err := gateway.members(ctx)
		if err != nil {
			return false, err
		}
		alive := 0
		for _, m := range members {
			if m.GetState() == adminv1.Member_STATE_ALIVE {
				alive++
			}
			if i == 0 && m.GetSelf() {
				digest = m.GetDigest()
			}
		}
		if alive != len(d.gateways) || slices.ContainsFunc(members, func(m *adminv1.Member) bool { return m.GetDigest() != digest }) {
			return false, nil
		}
	}
	return true, nil
}

// awaitMembers waits until the gateway sees what is wanted.
func (g *demoGateway) awaitMembers(ctx context.Context, wanted func([]*adminv1.Member) bool) error {
	ctx, cancel := context.WithTimeout(ctx, demoNotice)
	defer cancel()
	for {
		members, err := g.members(ctx)
		if err == nil && wanted(members) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to see what became of the others: %w; it sees %v", g.name, ctx.Err(), members)
		case <-time.After(demoLook):
		}
	}
}

// conclude sums up, and returns an error when not every RPC was answered.
func (d *clusterDemo) conclude() error {
	t := d.load.Totals()
	fmt.Fprintf(d.out, "\n%d RPCs: %d by v1, %d by v2, %d errors; %d were begun again at another gateway. Nothing is left behind.\n",
		t.RPCs, t.ByVersion["v1"], t.ByVersion["v2"], t.Errors, t.Again)
	if t.Errors > 0 {
		return fmt.Errorf("demo: %d of %d RPCs failed, the last with: %w", t.Errors, t.RPCs, t.LastError)
	}
	return nil
}
