package demo

import (
	"context"
	"errors"
	"hash/fnv"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	shopv1 "sluice/demo/shop/v1"
)

// maxChanges bounds what one Watch may ask for, so that a pasted command
// cannot keep a backend busy for ever.
const maxChanges = 1000

// cart serves shop.v1.Cart. It holds no state but its version.
type cart struct {
	shopv1.UnimplementedCartServer
	version string
}

var shelf = []*shopv1.Item{
	{Sku: "apple", Quantity: 6, Price: 45},
	{Sku: "bread", Quantity: 1, Price: 320},
	{Sku: "cheese", Quantity: 2, Price: 499},
	{Sku: "olives", Quantity: 1, Price: 275},
}

func (c *cart) Get(_ context.Context, req *shopv1.GetRequest) (*shopv1.GetResponse, error) {
	items := itemsOf(req.GetId())
	var total uint64
	for _, item := range items {
		total += price(item)
	}
	return &shopv1.GetResponse{Id: req.GetId(), Items: items, Total: total, ServedBy: c.version}, nil
}

func (c *cart) Fill(stream grpc.ClientStreamingServer[shopv1.FillRequest, shopv1.FillResponse]) error {
	reply := &shopv1.FillResponse{ServedBy: c.version}
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(reply)
		}
		if err != nil {
			return err
		}
		reply.Pieces += uint64(req.GetItem().GetQuantity())
		reply.Total += price(req.GetItem())
	}
}

func (c *cart) Watch(req *shopv1.WatchRequest, stream grpc.ServerStreamingServer[shopv1.WatchResponse]) error {
	changes := req.GetChanges()
	if changes == 0 {
		changes = 3
	}
	if changes > maxChanges {
		return status.Errorf(codes.InvalidArgument, "changes: %d asked for, limit %d", changes, maxChanges)
	}
	for n := range changes {
		change := &shopv1.WatchResponse{
			Number:   n + 1,
			Item:     shelf[int(n)%len(shelf)],
			ServedBy: c.version,
		}
		if err := stream.Send(change); err != nil {
			return err
		}
	}
	return nil
}

func (c *cart) Scan(stream grpc.BidiStreamingServer[shopv1.ScanRequest, shopv1.ScanResponse]) error {
	var total uint64
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		total += price(req.GetItem())
		if err := stream.Send(&shopv1.ScanResponse{Total: total, ServedBy: c.version}); err != nil {
			return err
		}
	}
}

// price returns what all pieces of an item cost, in cents.
func price(item *shopv1.Item) uint64 {
	return uint64(item.GetQuantity()) * uint64(item.GetPrice())
}

// itemsOf makes up the content of a cart from its id: one to four items, the
// same ones in every version of the service.
func itemsOf(id string) []*shopv1.Item {
	h := fnv.New32a()
	h.Write([]byte(id))
	return shelf[:1+int(h.Sum32()%uint32(len(shelf)))]
}
