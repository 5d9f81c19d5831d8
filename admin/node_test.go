package admin

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/grpc"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

func TestStatusTellsOfTheNode(t *testing.T) {
	n := startNode(t, func(_ *Config, p *Parts) {
		p.Ready = func() error { return errors.New("draining") }
		p.Problems = func() []string { return []string{"routes.yaml is refused"} }
	})
	n.apply(t, cart)
	n.gateway.mu.Lock()
	n.gateway.problems = map[store.ID]error{{Kind: "Backend", Namespace: "default", Name: "cart-v1"}: errors.New("no such file")}
	n.gateway.mu.Unlock()
	resp, err := n.node.Status(t.Context(), connect.NewRequest(&adminv1.StatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	m := resp.Msg
	if m.GetVersion() != "1.2.3" || m.GetNode() != n.store.Node() || m.GetStarted() == nil || m.GetListen() != "127.0.0.1:8080" ||
		m.GetAdmin() != n.addr || m.GetSequence() != 3 || m.GetProgrammed() != 3 || m.GetReady() || m.GetDigest() == "" ||
		m.GetObjects()["Backend"] != 2 || m.GetObjects()["GRPCRoute"] != 1 {
		t.Errorf("status %v", m)
	}
	if got, want := strings.Join(m.GetProblems(), "|"), "not ready: draining|routes.yaml is refused|Backend default/cart-v1 is not in force: no such file"; got != want {
		t.Errorf("problems %q, want %q", got, want)
	}
}

// backup reads a whole backup.
func (n *testNode) backup(t *testing.T) []byte {
	t.Helper()
	stream, err := n.node.Backup(t.Context(), connect.NewRequest(&adminv1.BackupRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var copied bytes.Buffer
	for stream.Receive() {
		copied.Write(stream.Msg().GetChunk())
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	return copied.Bytes()
}

func (n *testNode) restore(t *testing.T, copied []byte, first *adminv1.RestoreRequest) (*adminv1.WriteResponse, error) {
	t.Helper()
	stream := n.node.Restore(t.Context())
	for len(copied) > 0 {
		m := &adminv1.RestoreRequest{Chunk: copied[:min(len(copied), chunkSize)]}
		if first != nil {
			m.Reason, m.DryRun, first = first.GetReason(), first.GetDryRun(), nil
		}
		if err := stream.Send(m); err != nil {
			break
		}
		copied = copied[len(m.GetChunk()):]
	}
	resp, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func TestBackupIsRestored(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart)
	digest := n.store.Snapshot().Digest()
	copied := n.backup(t)
	n.apply(t, strings.Replace(cart, "weight: 90", "weight: 50", 1))
	if _, err := n.resources.Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Ref: ref("Backend", "cart-v2"), AllowUnresolved: true})); err != nil {
		t.Fatal(err)
	}

	tried, err := n.restore(t, copied, &adminv1.RestoreRequest{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(tried.GetChanges()) != 2 || n.store.Snapshot().Digest() == digest {
		t.Errorf("a dry run tells of %d changes, or makes them", len(tried.GetChanges()))
	}
	resp, err := n.restore(t, copied, &adminv1.RestoreRequest{Reason: "a lost backend"})
	if err != nil {
		t.Fatal(err)
	}
	wantActions(t, "restore", resp.GetChanges(), "restore Backend cart-v2", "restore GRPCRoute cart")
	if n.store.Snapshot().Digest() != digest || resp.GetChanges()[0].GetReason() != "a lost backend" {
		t.Errorf("after the restore: %v", resp)
	}

	// Another node starts with nothing.
	other := startNode(t)
	if _, err := other.restore(t, copied, nil); err != nil {
		t.Fatal(err)
	}
	if other.store.Snapshot().Digest() != digest {
		t.Error("the other node has something else")
	}
	for _, dir := range []string{n.dir, other.dir} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".tmp") {
				t.Errorf("%s was left behind", e.Name())
			}
		}
	}
}

func TestRestoreRefusesWhatIsNoBackup(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart)
	copied := n.backup(t)
	broken := bytes.Clone(copied)
	for i := len(broken) / 4; i < len(broken)/2; i++ {
		broken[i] ^= 0x55
	}
	for name, text := range map[string][]byte{
		"nothing": {}, "text": []byte("kind: Backend"), "half": copied[:len(copied)/2], "damaged": broken,
	} {
		_, err := n.restore(t, text, nil)
		wantCode(t, name, err, connect.CodeInvalidArgument, "")
	}
	if n.store.Snapshot().Seq() != 3 {
		t.Error("something has changed")
	}
}

// A backup by grpc-go, message by message, and only one at a time.
func TestBackupIsOneAtATime(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart)
	cc, signed := n.dialGRPC(t)
	n.admin.api.copies <- struct{}{} // somebody else's
	stream, err := cc.NewStream(signed, &grpc.StreamDesc{ServerStreams: true}, adminv1.NodeServiceBackupProcedure)
	if err == nil {
		err = errors.Join(stream.SendMsg(&adminv1.BackupRequest{}), stream.CloseSend(), stream.RecvMsg(new(adminv1.BackupResponse)))
	}
	if err == nil || !strings.Contains(err.Error(), "another backup or restore") {
		t.Errorf("error %v", err)
	}
	<-n.admin.api.copies
	stream, err = cc.NewStream(signed, &grpc.StreamDesc{ServerStreams: true}, adminv1.NodeServiceBackupProcedure)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.SendMsg(&adminv1.BackupRequest{}), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	size := 0
	for {
		m := new(adminv1.BackupResponse)
		if err := stream.RecvMsg(m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		size += len(m.GetChunk())
	}
	if size == 0 {
		t.Error("the backup is empty")
	}
}
