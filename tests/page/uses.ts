/** How somebody's program uses the client: compiled against its declarations, not run. */
import { applyToCounter, connect, delay, UNKNOWN, type Options, type Room, type RoomError, type Snapshot, type Unsure } from "../../static/client.js";

const options: Options = {
  onchange({ connection, value, pending, unsure, durable }: Snapshot, before: Snapshot) {
    console.log(connection, value, pending, durable, before.retryAt ?? 0);
    if (unsure.length > 0) ask(unsure);
  },
  onerror: (error: RoomError) => console.warn(error.code, error.message, error.n, error.action),
  apply: (value: string[], action: { add: string }) => [...value, action.add],
  api: new URL("https://a.test/api/rooms/door"),
};
const room: Room = connect("/r/door", options);
const wasTaken: boolean = room.plus() && room.minus() && room.send({ action: "set", value: 3 });

function ask(unsure: readonly Unsure[]): Promise<number> {
  const [first] = unsure;
  return wasTaken ? room.resend([first]) : room.discard();
}

const first: Snapshot = room.snapshot ?? UNKNOWN;
const pause: number = delay(0, 0.5);
const shown: unknown = applyToCounter(first.value, { action: "plus", by: 2 });
// @ts-expect-error a snapshot is never changed
first.value = pause;
// @ts-expect-error an action is an object
room.send("plus");
room.retryNow();
room.close();
export { shown };
