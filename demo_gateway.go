package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

// demoGatewayCommand is serve for a process that belongs to a demo: it ends when its
// standard input does, and so outlives nobody, however the demo is ended. It is not for
// people.
func demoGatewayCommand() *cobra.Command {
	var cfg config
	cmd := &cobra.Command{
		Use:    "demo-gateway",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.validate(); err != nil {
				return usageError{err}
			}
			// Ctrl-C in a terminal is told to every process of it; only the demo obeys.
			ctx, end := context.WithCancel(context.WithoutCancel(cmd.Context()))
			defer end()
			go func() { // ends with the process at the latest
				io.Copy(io.Discard, cmd.InOrStdin())
				end()
			}()
			return serve(ctx, &cfg, cfg.logger(cmd.ErrOrStderr(), slog.LevelInfo))
		},
	}
	cfg.addFlags(cmd.Flags())
	return cmd
}

const (
	// demoStart is how long a gateway of the demo may take to answer, demoEnd to end.
	demoStart = 20 * time.Second
	demoEnd   = 10 * time.Second
)

// demoGateway is one of several gateways of a demo, and a process of its own: to kill it
// is what kill -9 is. Its methods belong to one goroutine but for those of the API.
type demoGateway struct {
	name, dir     string // dir has its data, and its log beside it
	listen, admin string // what to listen on, and then where it does

	resources adminv1.ResourceServiceClient
	node      adminv1.NodeServiceClient
	cluster   adminv1.ClusterServiceClient

	cmd      *exec.Cmd
	lifeline io.Closer // its standard input
}

func newDemoGateway(dir string, number int, listen, admin string) *demoGateway {
	name := fmt.Sprintf("gateway-%d", number)
	g := &demoGateway{name: name, dir: filepath.Join(dir, name), listen: listen, admin: admin}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // a connection to a process that was killed would be in the way of the next
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(g.dir, "admin.sock"))
		},
	}}
	g.resources = adminv1.NewResourceServiceClient(client, "http://localhost")
	g.node = adminv1.NewNodeServiceClient(client, "http://localhost")
	g.cluster = adminv1.NewClusterServiceClient(client, "http://localhost")
	return g
}

// address is where a client on this machine reaches it.
func (g *demoGateway) address() string { return reachableAt(g.listen) }

// logFile is where the gateway writes its log.
func (g *demoGateway) logFile() string { return g.dir + ".log" }

// start begins the process, which joins the peers that it is given and those that it
// remembers, and waits until it is ready.
func (g *demoGateway) start(ctx context.Context, join ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(g.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	g.cmd = exec.Command(self, "demo-gateway", "--data-dir", g.dir, "--listen", g.listen, "--admin", g.admin,
		"--gossip", "127.0.0.1:0", "--join", strings.Join(join, ","), "--grace", "1s")
	g.cmd.Args[0] = "sluice" // by which tests know the program
	g.cmd.Stderr = log
	if g.lifeline, err = g.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := g.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", g.name, err)
	}
	return g.awaitReady(ctx)
}

// awaitReady waits until the gateway answers, and learns where.
func (g *demoGateway) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoStart)
	defer cancel()
	for {
		reply, err := g.node.Status(ctx, connect.NewRequest(&adminv1.StatusRequest{}))
		if err == nil && reply.Msg.GetReady() {
			g.listen, g.admin = reply.Msg.GetListen(), reply.Msg.GetAdmin()
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w; its log ends with: %s", g.name, errors.Join(ctx.Err(), err), g.lastLine())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (g *demoGateway) lastLine() string {
	text, err := os.ReadFile(g.logFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// gossip is where the gateway is found by its peers.
func (g *demoGateway) gossip(ctx context.Context) (string, error) {
	members, err := g.members(ctx)
	for _, m := range members {
		if m.GetSelf() {
			return m.GetAddress(), nil
		}
	}
	return "", fmt.Errorf("ask %s for its address: %w", g.name, errors.Join(err, errors.New("it does not list itself")))
}

// members are the gateways, as this one sees them.
func (g *demoGateway) members(ctx context.Context) ([]*adminv1.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, demoStart)
	defer cancel()
	reply, err := g.cluster.ListMembers(ctx, connect.NewRequest(&adminv1.ListMembersRequest{}))
	if err != nil {
		return nil, err
	}
	return reply.Msg.GetMembers(), nil
}

// kill ends the process as a power cut does: no stream is ended, nobody is told.
func (g *demoGateway) kill() {
	g.cmd.Process.Kill()
	g.cmd.Wait()
	g.cmd = nil
}

// end lets the process drain, and waits for it.
func (g *demoGateway) end() error {
	if g.cmd == nil {
		return nil
	}
	g.lifeline.Close()
	overdue := time.AfterFunc(demoEnd, func() { g.cmd.Process.Kill() })
	defer overdue.Stop()
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("%s ended with %w; its log ends with: %s", g.name, err, g.lastLine())
	}
	return nil
}
