package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

// waiting is the value of --wait: for whom the answer to a change waits.
type waiting struct{ is adminv1.Wait }

var waits = map[string]adminv1.Wait{"local": adminv1.Wait_WAIT_UNSPECIFIED, "all": adminv1.Wait_WAIT_ALL}

func (w *waiting) String() string {
	if w.is == adminv1.Wait_WAIT_ALL {
		return "all"
	}
	return "local"
}

func (w *waiting) Type() string { return "whom" }

func (w *waiting) Set(s string) error {
	is, ok := waits[s]
	if !ok {
		return fmt.Errorf("want local or all")
	}
	w.is = is
	return nil
}

// addWait declares --wait. Where that has another meaning already, the flag is --wait-peers.
func (p *program) addWait(cmd *cobra.Command, w *waiting) {
	cmd.Flags().Var(w, "wait", "`whom` to wait for: local, until the server obeys; all, until the live gateways of its cluster do, 10s at the most")
	p.complete(cmd, "wait", fixed("local", "all"))
}

// confirmed tells who obeys a change beside the server that was asked, if anybody was
// waited for. It fails when somebody has not said so: who goes on in a script counts on
// all of them.
func (c *call) confirmed(peers *adminv1.Confirmation) error {
	if peers == nil {
		return nil
	}
	missing, n := peers.GetUnconfirmed(), int(peers.GetConfirmed())
	for _, u := range missing {
		c.note("%s has not confirmed: %s", memberName(u.GetHost(), u.GetNode()), printable(u.GetWhy()))
	}
	switch {
	case len(missing) > 0:
		return fmt.Errorf("not confirmed by %d of %s: the change is durable on the server that was asked, and travels on",
			len(missing), count(n+len(missing), "peer"))
	case n == 0:
		c.note("no other gateway lives: there was nobody to wait for")
	default:
		c.note("%s it, too", obey(n))
	}
	return nil
}

// obey is "1 peer obeys", or "3 peers obey".
func obey(n int) string {
	if n == 1 {
		return "1 peer obeys"
	}
	return count(n, "peer") + " obey"
}

// memberName is "gw-1 (k3f9x2ab)".
func memberName(host, node string) string {
	if host == "" {
		return printable(node)
	}
	return printable(host + " (" + node + ")")
}

// joined is what came of waiting for the same peers twice.
func joined(a, b *adminv1.Confirmation) *adminv1.Confirmation {
	if a == nil || len(b.GetUnconfirmed()) > len(a.GetUnconfirmed()) {
		return b
	}
	return a
}
