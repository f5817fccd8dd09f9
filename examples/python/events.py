"""Events between two processes: one waits for orders, the other publishes them.

python events.py DIRECTORY host         opens the mesh, prints every order, ends after `orders.end`
python events.py DIRECTORY publish N    connects and publishes N orders
"""

import sys

import flowmesh


def main(directory: str, role: str, count: str = "0") -> None:
    if role == "host":
        with flowmesh.open(directory, name="orders") as mesh, mesh.subscribe("orders.*", capacity=10_000) as orders:
            print("waiting for orders", flush=True)
            for order in orders:
                if order.gap > 0:
                    print(f"{order.gap} orders were lost: this process is too slow")
                if order.subject == "orders.end":
                    break
                print(f"{order.subject}: order {order.value['order']} of {order.value['customer']}")
    else:
        with flowmesh.connect(directory, name="shop") as mesh:
            mesh.publish_many("orders.created", [{"order": n + 1, "customer": "Ada"} for n in range(int(count))])
            mesh.publish("orders.end")


if __name__ == "__main__":
    main(*sys.argv[1:])
